# shellcheck shell=bash
# The functions behind the steps of scripts/compose-demo: the containers of a service, requests to both etcds,
# conditions with a deadline. Sourced after docker.sh. COMPOSE_PROJECT_NAME must be set.

# For the output of the last check.
log_folder=$(mktemp -d)
# The longest wait of a step in seconds, beside the waits that a step announces.
readonly patience=90

# chapter TEXT…: prints the heading of the next steps.
chapter() { printf '\n==> %s\n' "$*"; }

# holds TEXT COMMAND…: waits until the command succeeds; ends the demonstration if it does not within $patience seconds.
holds() {
  local text=$1 begin=$SECONDS
  shift
  until "$@" >"$log_folder/last" 2>&1; do
    if ((SECONDS - begin > patience)); then
      printf '    FAILED after %d s: %s\n' $((SECONDS - begin)) "$text" >&2
      printf '      the check was: %s\n' "$*" >&2
      sed 's/^/      /' "$log_folder/last" >&2
      exit 1
    fi
    sleep 0.5
  done
  printf '    ok  %s%s\n' "$text" "$( ((SECONDS - begin < 2)) || echo " ($((SECONDS - begin)) s)")"
}

# containers SERVICE [FILTER…]: ids of its containers, running or not.
containers() {
  local service=$1
  shift
  docker ps --all --quiet --no-trunc "$@" --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    --filter "label=com.docker.compose.service=$service" --filter label=com.docker.compose.oneoff=False
}

# node N: the container of node-N.
node() { containers node --filter "label=com.docker.compose.container-number=$1"; }

# running SERVICE…: ids of its running containers.
running() {
  local service
  for service in "$@"; do containers "$service" --filter status=running; done
}

# etcd ARGUMENT…: etcdctl in a running member, with all members as endpoints.
etcd() {
  local member
  read -r member < <(running etcd-1 etcd-2 etcd-3)
  docker exec "$member" /usr/local/bin/etcdctl --endpoints=etcd-1:2379,etcd-2:2379,etcd-3:2379 "$@" 2>/dev/null
}

# manager_etcd ARGUMENT…: etcdctl in the manager's etcd.
manager_etcd() { docker exec "$(containers etcd-manager)" /usr/local/bin/etcdctl "$@"; }

# enlist ARGUMENT…: the binary, in a running instance of the roles.
enlist() {
  local instance
  read -r instance < <(running roles-1 roles-2)
  docker exec "$instance" enlist "$@"
}

# value KEY, manager_value KEY: the stored value; empty if the key is absent.
value() { etcd get --print-value-only "/enlist/$1"; }
manager_value() { manager_etcd get --print-value-only "/enlist/$1"; }

# keys PREFIX: the keys below it, sorted.
keys() { etcd get --prefix --keys-only "/enlist/$1" | sed '/^$/d'; }

# phase NODE: the phase in its status; silent if it has none.
phase() {
  local status
  status=$(value "nodes/$1/status") || return 1
  if [[ -z $status ]]; then echo silent; else sed -n 's/.*"phase":"\([a-z]*\)".*/\1/p' <<<"$status"; fi
}

# place NODE: "address port", as assigned; empty if it has none.
place() { value "nodes/$1/assignment" | sed -n 's/.*"addresses":\["\([^"]*\)"\],"ports":{"http":\([0-9]*\)}.*/\1 \2/p'; }

# places: "node address port" of all published members, from the manager's etcd, as a consumer sees them.
places() {
  manager_etcd get --prefix /enlist/manager/groups/all/members/ | paste -d ' ' - - | grep '"published":true' |
    sed -n 's|^.*/members/\([^ ]*\) .*"addresses":\["\([^"]*\)"\].*"ports":{"http":\([0-9]*\)}.*|\1 \2 \3|p'
}

has_phase() { [[ $(phase "$1") == "$2" ]]; }
has_place() { [[ $(place "$1") == "$2" ]]; }
has_port() { [[ $(place "$1") == *" $2" ]]; }
has_claim() { [[ -n $(value "claims/default/${1/ //}") ]]; }
# An etcd that does not answer proves neither presence nor absence: both checks fail.
has_no_claim() { local found; [[ -n $1 ]] && found=$(value "claims/default/${1/ //}") && [[ -z $found ]]; }
is_published() { [[ $(manager_value "manager/groups/all/members/$1") == *'"published":true'* ]]; }
is_not_published() { [[ $(manager_value "manager/groups/all/members/$1") == *'"published":false'* ]]; }
is_no_member() { local found; found=$(manager_value "manager/groups/all/members/$1") && [[ -z $found ]]; }
hold_says() { [[ $(value "nodes/$1/hold") == *"$2"* ]]; }

# all_registered N: N nodes, all of them registered, by their status and by the manager's copies.
all_registered() {
  local count=$1
  [[ $(etcd get --prefix /enlist/nodes/ | grep -c '"phase":"registered"') == "$count" &&
    $(manager_etcd get --prefix /enlist/manager/nodes/ | grep -c '"phase":"registered"') == "$count" &&
    $(places | wc -l) == "$count" ]]
}

# in_step: the copies in the manager's etcd equal the records in the nodes' etcd byte for byte, and there is at least
# one.
in_step() {
  local nodes copies
  nodes=$(etcd get --prefix /enlist/nodes/ | facts) && copies=$(manager_etcd get --prefix /enlist/manager/nodes/ | facts) || return 1
  [[ -n $nodes ]] && diff <(echo "$nodes") <(echo "$copies")
}
facts() { sed -n '/\/\(label\|status\|assignment\)$/{n;p}'; }

# reached_by CONTAINER: every published place answers the container with the name of the right node.
reached_by() {
  # shellcheck disable=SC2016 # The variables are the other shell's.
  places | docker exec --interactive "$1" bash -c '
    while read -r id ip port; do
      exec 3<>"/dev/tcp/$ip/$port" && printf "GET / HTTP/1.0\r\n\r\n" >&3 || exit 1
      answer=$(tail -n 1 <&3)
      [[ $answer == "$id at $ip:$port" ]] || { echo "$ip:$port answers: $answer, not $id"; exit 1; }
      seen=$((seen + 1))
    done
    ((seen > 0))'
}

all_reach_all() {
  local container
  for container in $(running node); do reached_by "$container" || return 1; done
}

# reaps CONTAINER: enlist is its process 1, and no ended orphan stays a zombie there.
reaps() {
  # shellcheck disable=SC2016 # The variables are the other shell's.
  docker exec "$1" bash -c '[[ $(tr "\0" " " </proc/1/cmdline) == "enlist agent "* ]] && for i in 1 2 3 4 5; do (sleep 0 &); done' &&
    docker exec "$1" bash -c '! cat /proc/[0-9]*/stat 2>/dev/null | grep ") Z 1 "'
}

# leader ROLE: the host name of the leading instance.
leader() { manager_or_source "$1" | sed -n 's/.*"identity":"\([^"/]*\).*/\1/p'; }
manager_or_source() { if [[ $1 == allocator ]]; then value "roles/$1"; else manager_value "roles/$1"; fi; }

# one_leads_one_stands_by: each role has a leader and one more instance.
one_leads_one_stands_by() { [[ $(enlist get roles | awk 'NR > 1 && $2 != "" && $3 == 1' | wc -l) == 3 ]]; }

# leads_all_but INSTANCE: the other instance leads all three roles.
leads_all_but() {
  local now
  now=$(leader allocator)
  [[ -n $now && $now != "$1" && $(leader relay) == "$now" && $(leader manager) == "$now" ]]
}

# kept PLACES: all these places are still published, unchanged.
kept() { [[ -n $1 && -z $(comm -23 <(sort <<<"$1") <(places | sort)) ]]; }

# ports_kept PLACES: all these nodes are published with the same ports. (A restarted container may get another address
# from the engine.)
ports_kept() { [[ -n $1 && -z $(comm -23 <(cut -d ' ' -f 1,3 <<<"$1" | sort) <(places | cut -d ' ' -f 1,3 | sort)) ]]; }
claimed_are() { [[ -n $1 && $(keys claims/) == "$1" ]]; }

# children CONTAINER: the child processes of its process 1.
children() { docker exec "$1" sh -c "cat /proc/1/task/*/children"; }
has_children() { [[ -n $2 && $(children "$1") == "$2" ]]; }

brake_is() { [[ $(enlist brake status | awk '$1 == "allocator" || $1 == "manager" {print $2}' | sort -u) == "$1" ]]; }

# sound: enlist's own check finds nothing, and the manager's copies equal the nodes' records.
is_sound() { enlist check && in_step; }
sound() { holds "enlist check finds nothing; the manager's copies are those of the nodes, byte for byte" is_sound; }
