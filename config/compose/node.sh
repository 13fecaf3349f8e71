#!/bin/sh
# A node of docker-compose.yml. Its identity is its place in the service: the engine's name server knows the container's name
# (enlist_node_3, enlist-node-3), which a container that is made anew for the same place gets again; its own host name it does
# not. Where no such name is known, the host name has to do.
set -eu
address=$(hostname -i)
# From the name server alone: /etc/hosts knows only the container's own host name.
id=$(getent -s dns hosts "$address" | sed -nE 's/.*[_-](node)[_-]([0-9]+)\..*/\1-\2/p' | head -n 1)
if [ -z "$id" ]; then
  id=$(hostname)
  echo "no name is known for $address: this node is $id, and another one when the container is made anew" >&2
fi
case $id in
  *[13579]) zone=eu-1 ;;
  *) zone=eu-2 ;;
esac
# In place of this shell: enlist is process 1, gets the signals, and waits for orphans.
exec enlist agent --id "$id" --instance "$id" --var "zone=$zone" --var role=web --port http -- perl /compose/hello.pl
