# Names limitador's three stores as peers of `cargo load -- --peers`. Read it into a shell in the repository's root:
#
#     . docs/performance/peers/limitador.sh && cargo load -- --peers
#
# LIMITADOR is limitador's program, by default the one that the path finds.

limitador="${LIMITADOR:-limitador-server}"
options="--rls-ip 127.0.0.1 --rls-port {port} --http-ip 127.0.0.1 --http-port 0"
limits=docs/performance/peers/limitador.yaml

export SLUICE_PEER_LIMITADOR_MEMORY="exec $limitador $options {config} memory"
export SLUICE_PEER_LIMITADOR_MEMORY_KIND=rls SLUICE_PEER_LIMITADOR_MEMORY_CONFIG="$limits"

export SLUICE_PEER_LIMITADOR_REDIS="exec $limitador $options {config} redis {redis_url}"
export SLUICE_PEER_LIMITADOR_REDIS_KIND=rls SLUICE_PEER_LIMITADOR_REDIS_CONFIG="$limits"

export SLUICE_PEER_LIMITADOR_REDIS_CACHED="exec $limitador $options {config} redis_cached {redis_url}"
export SLUICE_PEER_LIMITADOR_REDIS_CACHED_KIND=rls SLUICE_PEER_LIMITADOR_REDIS_CACHED_CONFIG="$limits"

unset limitador options limits
