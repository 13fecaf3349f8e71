#!/bin/sh
# A node of docker-compose.yml. Its identity is its place in the service: the engine's name server knows the container's
# name (enlist_node_3, enlist-node-3), which a recreated container for the same place gets again, unlike its host name.
# If no such name is known, the host name is used.
set -eu
address=$(hostname -i)
# Asks the name server alone: /etc/hosts knows only the container's own host name.
id=$(getent -s dns hosts "$address" | sed -nE 's/.*[_-](node)[_-]([0-9]+)\..*/\1-\2/p' | head -n 1)
if [ -z "$id" ]; then
  id=$(hostname)
  echo "no name is known for $address: this node is $id, and gets another id when the container is recreated" >&2
fi
case $id in
  *[13579]) zone=eu-1 ;;
  *) zone=eu-2 ;;
esac
# Replaces this shell: enlist is process 1, gets the signals, and reaps orphans.
exec enlist agent --id "$id" --instance "$id" --var "zone=$zone" --var role=web --port http -- perl /compose/hello.pl
