# shellcheck shell=bash
# What the scripts about containers share: is there an engine, and which Compose. Sourced, after apt.sh.

# engine_answers: true if a Docker Engine can be used.
engine_answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

# engine_is_installed: true if this machine is one that ought to have an engine.
engine_is_installed() { command -v dockerd >/dev/null || [[ -S /var/run/docker.sock ]]; }

# need_engine: ends with one line if there is none.
need_engine() {
  command -v docker >/dev/null || die "docker is not here: install Docker Engine (Debian: apt-get install docker.io)"
  engine_answers || die "no Docker Engine answers: start it (systemctl start docker), or get access to it (docker info says what is wrong)"
}

compose_command=()

# find_compose: Compose v2 as docker's plugin, or the program of its own, v1 or v2, which is installed if there is none.
find_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose_command=(docker compose)
  else
    install_packages docker-compose:docker-compose
    compose_command=(docker-compose)
  fi
}

# compose ARGUMENT…
compose() { "${compose_command[@]}" "$@"; }
