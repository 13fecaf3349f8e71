# enlist, built from source, on a small Debian, as a user without privileges. Needs no BuildKit:
#
#   docker build -t enlist .
#
# The binary is the entry point, settings are variables (ENLIST__SECTION__KEY, see config/enlist.toml):
#
#   docker run -e ENLIST__SOURCE__ENDPOINTS=etcd-1:2379,etcd-2:2379 enlist run
#   docker run -e ENLIST__SOURCE__ENDPOINTS=etcd-1:2379,etcd-2:2379 enlist agent --id edge-7 --var zone=eu-1

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libprotobuf-dev protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# release is the profile to deploy; dev builds faster (without whole-program optimisation).
ARG PROFILE=release

# The dependencies have their own layer, which is built again only when one of these two files changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src integration \
    && echo 'fn main() {}' | tee build.rs src/main.rs > integration/main.rs \
    && touch src/lib.rs \
    && cargo build --locked --profile "$PROFILE" --bin enlist

COPY build.rs ./
COPY config config
COPY src src
# The commit that --version prints; without it the commit is "unknown", because .git is not in the build context.
ARG ENLIST_COMMIT=
# cargo compares times, and the copied files may be older than the empty files above. Without target, this layer is only
# the binary.
RUN touch build.rs src/main.rs src/lib.rs \
    && cargo build --locked --profile "$PROFILE" --bin enlist \
    && mkdir /out \
    && cp "target/$(echo "$PROFILE" | sed 's/^dev$/debug/')/enlist" /out/ \
    && rm -rf target

FROM debian:bookworm-slim
# For an etcd with a certificate from a public authority; --cacert names another authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/enlist /usr/local/bin/
RUN useradd --system --uid 990 --user-group --no-create-home --home-dir /var/lib/enlist enlist \
    && install --directory --owner enlist --group enlist /var/lib/enlist
USER enlist
# An agent keeps its identity in /var/lib/enlist/<id>: a volume there, or --instance, lets a recreated container keep
# its place.
ENV XDG_STATE_HOME=/var/lib
# Checks that etcd answers with the settings of this container. This is for `enlist run`; docker-compose.yml checks an
# agent at its temporary endpoint instead.
HEALTHCHECK --interval=10s --timeout=10s --start-period=20s CMD ["enlist", "get", "roles", "--output", "name"]
ENTRYPOINT ["enlist"]
CMD ["--help"]
