# shellcheck shell=bash
# Functions to get Debian packages, for the scripts in the parent folder. Each prints one line per step.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@" || die "needs root: run as root, or allow sudo without a password"; fi
}

# install_packages COMMAND-OR-FILE:PACKAGE… installs the packages whose command or file is missing.
install_packages() {
  local pair missing=()
  for pair in "$@"; do
    [[ -e ${pair%%:*} ]] || command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  if [[ ${#missing[@]} == 0 ]]; then
    say "present: ${*##*:}"
    return
  fi
  command -v apt-get >/dev/null || die "apt-get is not installed: install ${missing[*]} by hand"
  say "installing ${missing[*]}"
  # etcd-server would start a service, which the scripts do not use: a policy forbids that during the installation,
  # unless the machine has its own policy.
  local policy=/usr/sbin/policy-rc.d made=
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=1
  fi
  local status=0
  # Package lists may be missing or old: then the installation is retried with new ones.
  apt_install "${missing[@]}" 2>/dev/null || { say "updating the package lists" && as_root apt-get update -qq >&2 && apt_install "${missing[@]}"; } || status=$?
  if [[ -n $made ]]; then as_root rm -f "$policy"; fi
  [[ $status == 0 ]] || die "failed to install ${missing[*]}: check the network"
  # The service must not start at the next boot either.
  if [[ " ${missing[*]} " == *" etcd-server "* && -d /run/systemd/system ]]; then
    as_root systemctl disable --quiet etcd || true
  fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The Debian mirror in the package sources of this machine; empty if there is none.
debian_mirror() {
  {
    sed -nE 's/^deb(-src)? +(\[[^]]*\] +)?([^ ]+) .*/\3/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    sed -nE 's/^URIs: *([^ ]+).*/\1/p' /etc/apt/sources.list.d/*.sources
  } 2>/dev/null | grep -E '/debian/?$' | head -n 1
}

# unpack_newer_etcd DIR: etcd 3.5 from Debian 13 (trixie) under DIR/usr/bin. apt gets its own state under DIR, so that
# it neither uses nor changes the lists, caches and pins of the system.
unpack_newer_etcd() {
  local dir=$1 state mirror keyring options file
  if [[ -x $dir/usr/bin/etcd && -x $dir/usr/bin/etcdctl ]]; then
    say "present: $dir/usr/bin/etcd"
    return
  fi
  mirror=$(debian_mirror) || true
  [[ -n $mirror ]] || die "this machine's package sources name no Debian mirror: put etcd 3.5 and etcdctl into $dir/usr/bin by hand"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -e $keyring ]] || die "$keyring is missing: install debian-archive-keyring"
  mkdir -p "$dir"
  state=$(cd "$dir" && pwd)/apt
  mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/etc"
  printf 'deb [signed-by=%s] %s trixie main\n' "$keyring" "$mirror" >"$state/sources.list"
  : >"$state/status"
  options=(-o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::Etc::sourceparts=$state/etc"
    -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=$state/etc"
    -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state" -o "Dir::Cache::archives=$state/archives" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  say "fetching etcd 3.5 from Debian 13"
  apt-get "${options[@]}" update -qq >&2 || die "failed to read Debian 13's package lists: check the network"
  (cd "$state/archives" && apt-get "${options[@]}" download -qq etcd-server etcd-client >&2) ||
    die "failed to fetch etcd from Debian 13: check the network"
  for file in "$state"/archives/*.deb; do
    dpkg -x "$file" "$dir"
  done
  rm -rf "$state"
  say "unpacked: $("$dir/usr/bin/etcd" --version | head -n 1) in $dir"
}
