#!/bin/sh
# A hook for `enlist agent --exec`: adds the assigned addresses to an interface and removes withdrawn ones.
#
#   IFACE=eth1 enlist agent --exec 'examples/ip-addr-hook.sh' …
#
# enlist itself never touches network interfaces. A file remembers the added addresses, so that a change or a restart
# first removes the old ones. A second call with the same addresses changes nothing.
set -eu
iface=${IFACE:?set IFACE to the interface for the address}
kept=${STATE:-/run}/enlist-${ENLIST_ID:?set by enlist}.addresses

want=
case $ENLIST_EVENT in
  assigned | changed)
    [ -z "${ENLIST_IP4:-}" ] || want="$want $ENLIST_IP4/32"
    [ -z "${ENLIST_IP6:-}" ] || want="$want $ENLIST_IP6/128"
    ;;
  withdrawn) ;;
  *) echo "unknown event $ENLIST_EVENT" >&2; exit 2 ;;
esac

if [ -f "$kept" ]; then
  while read -r old; do
    case " $want " in
      *" $old "*) ;;
      *) ip addr del "$old" dev "$iface" 2>/dev/null || true ;;
    esac
  done <"$kept"
fi
: >"$kept.new"
for address in $want; do
  ip addr replace "$address" dev "$iface"
  echo "$address" >>"$kept.new"
done
mv "$kept.new" "$kept"
