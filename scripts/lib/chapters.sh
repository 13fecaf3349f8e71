# shellcheck shell=bash
# The steps of scripts/compose-demo, chapter by chapter. The script sources this file after story.sh.

chapter "three etcds, the manager's etcd, two instances of the roles, three nodes"
up --scale node=3
holds "three nodes are registered" all_registered 3
holds "each role has a leader and a standby" one_leads_one_stands_by
enlist get nodes -o wide
echo
enlist get groups
holds "every published address is reached from every node" all_reach_all
holds "the agent is process 1 of its container and reaps orphans" reaps "$(node 1)"
sound

chapter "scale up: four more nodes"
before=$(places | sort)
scale 7
holds "seven nodes are registered" all_registered 7
holds "the earlier nodes have kept their places" kept "$before"
holds "every published address is reached from every node" all_reach_all
sound

chapter "stop one node"
had=$(place node-2)
docker stop "$(node 2)" >/dev/null
holds "node-2 reports that it is stopped" has_phase node-2 stopped
holds "the group publishes it no more" is_not_published node-2
holds "its place is held: $had is claimed" has_claim "$had"
sound
holds "when its hold is over (30 s), its place is free again" has_no_claim "$had"
holds "the node is no longer a member" is_no_member node-2
docker start "$(node 2)" >/dev/null
holds "after a new start the node is registered" all_registered 7
sound

chapter "kill one node, and throw its container away"
had=$(place node-7)
docker rm --force "$(node 7)" >/dev/null
holds "node-7 is silent when its lease has run out" has_phase node-7 silent
holds "the group publishes it no more" is_not_published node-7
holds "its place is held: $had is claimed" has_claim "$had"
scale 7
holds "a recreated container takes its name and is registered" all_registered 7
holds "the node has its port again" has_port node-7 "${had##* }"
sound

chapter "kill the instance that leads"
led=$(leader allocator)
docker kill "$led" >/dev/null
holds "the other instance leads all roles" leads_all_but "$led"
scale 8
holds "a node that starts now is registered" all_registered 8
docker start "$led" >/dev/null
holds "after a new start the first instance stands by" one_leads_one_stands_by
sound

chapter "kill the etcd member that leads its cluster"
before=$(places | sort)
member=$(etcd endpoint status | sed -n 's/^\([^:]*\):2379, \([^,]*, \)\{3\}true,.*/\1/p')
docker kill "$(containers "$member")" >/dev/null
holds "etcd answers without $member" value roles/allocator
docker stop "$(node 1)" >/dev/null
holds "a node stops" has_phase node-1 stopped
docker start "$(node 1)" >/dev/null
holds "after a new start all nodes are registered" all_registered 8
holds "every published address is reached from every node" all_reach_all
docker start "$(containers "$member")" >/dev/null
holds "$member is back" etcd endpoint health
holds "the nodes that kept running have kept their places" kept "$(grep -v '^node-1 ' <<<"$before")"
sound

chapter "cut one node off the network, and heal it"
had=$(place node-3)
cut=$(node 3)
server=$(children "$cut")
docker network disconnect "${COMPOSE_PROJECT_NAME}_nodes" "$cut"
holds "node-3 is silent when its lease has run out" has_phase node-3 silent
holds "the group publishes it no more" is_not_published node-3
holds "its place is held: $had is claimed" has_claim "$had"
docker network connect --ip "${had% *}" "${COMPOSE_PROJECT_NAME}_nodes" "$cut"
holds "with the network back the node is registered" all_registered 8
holds "the node has kept its place" has_place node-3 "$had"
holds "its server has kept running" has_children "$cut" "$server"
holds "every published address is reached from every node" all_reach_all
sound

chapter "take most nodes away at once"
before=$(places | sort)
claimed=$(keys claims/)
# node-3 starts first: since the network was healed its container has a fixed address, which an earlier start of another
# container could take.
away=("$cut")
for n in 2 4 5 6 7; do away+=("$(node "$n")"); done
docker kill "${away[@]}" >/dev/null
for n in 2 3 4 5 6 7; do holds "node-$n is silent" has_phase "node-$n" silent; done
holds "the brake is on" brake_is on
holds "all of them are still published" kept "$before"
for n in 2 3 4 5 6 7; do holds "the hold of node-$n is over and extended" hold_says "node-$n" '"extended":true'; done
holds "no claim was released" claimed_are "$claimed"
enlist brake status
holds "enlist check finds nothing" enlist check
docker start "${away[@]}" >/dev/null
holds "after a new start all nodes are registered" all_registered 8
holds "all nodes have kept their ports" ports_kept "$before"
holds "the brake is off" brake_is off
holds "every published address is reached from every node" all_reach_all
sound

echo
enlist get nodes
