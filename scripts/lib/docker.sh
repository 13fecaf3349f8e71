# shellcheck shell=bash
# Shared parts of the container scripts: checks for an engine, and for the version of Compose. Sourced after apt.sh.

# engine_answers: true if a Docker Engine can be used.
engine_answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

# engine_is_installed: true if this machine should have an engine.
engine_is_installed() { command -v dockerd >/dev/null || [[ -S /var/run/docker.sock ]]; }

# need_engine: ends with one line if no engine answers.
need_engine() {
  command -v docker >/dev/null || die "docker is not installed: install Docker Engine (Debian: apt-get install docker.io)"
  engine_answers || die "no Docker Engine answers: start it (systemctl start docker), or get access to it (docker info shows the problem)"
}

compose_command=()

# find_compose: takes Compose v2 as docker's plugin, or the separate program, v1 or v2, which is installed if it is
# missing.
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
