# Sourced by deploy/test/run: a Postgres and a Redis for the suite, real ones, from the product's own images.
# Unix sockets in the run's data folder; no password worth the name, no durability: the data is thrown away.
# shellcheck shell=bash

services_data=${GUNPOWDER_TEST_DATA:?deploy/test.sh sets it}/services

services_environment() {
    export DATABASE_URL="postgres://gunpowder:gunpowder@/gunpowder?host=$services_data/postgresql&connect_timeout=30"
    export REDIS_URL="unix://$services_data/redis/redis.sock"
    export GUNPOWDER_SECRET_KEY="only-for-tests-only-for-tests-only-for-tests-only-for-tests"
    export GUNPOWDER_SECRETS_DIR="$services_data/secrets"
    export GUNPOWDER_INSTANCE="$GUNPOWDER_TEST_ID" GUNPOWDER_CONTAINER_PREFIX="$GUNPOWDER_TEST_ID-user"
    export GUNPOWDER_WORKSPACE_ROOT="$GUNPOWDER_TEST_DATA/workspace" GUNPOWDER_WORKSPACE_MOUNT="$GUNPOWDER_TEST_DATA/workspace"
    export GUNPOWDER_RUNTIME=memory GUNPOWDER_PORT_BASE=11000 GUNPOWDER_PORT_RANGE=21000-21999
    install -d -m 0755 "$GUNPOWDER_SECRETS_DIR" "$GUNPOWDER_WORKSPACE_ROOT"
    printf 'only-for-tests' >"$GUNPOWDER_SECRETS_DIR/gate_key"
}

start_services() {
    install -d -m 0777 "$services_data" "$services_data/postgresql" "$services_data/redis"
    printf 'gunpowder' >"$services_data/postgresql/password"
    docker run --detach --name "$GUNPOWDER_TEST_ID-postgres" --label "gunpowder.test=$GUNPOWDER_TEST_ID" \
        --network none --user 999:999 --tmpfs /var/lib/postgresql/data:uid=999,gid=999,mode=0700 --shm-size 128m \
        --volume "$services_data/postgresql:/run/postgresql" \
        --env POSTGRES_USER=gunpowder --env POSTGRES_DB=gunpowder --env POSTGRES_PASSWORD_FILE=/run/postgresql/password \
        "$GUNPOWDER_POSTGRES_IMAGE" postgres -c listen_addresses= -c unix_socket_directories=/run/postgresql \
        -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 \
        -c autovacuum=off -c bgwriter_delay=10s -c wal_writer_delay=10s >/dev/null
    docker run --detach --name "$GUNPOWDER_TEST_ID-redis" --label "gunpowder.test=$GUNPOWDER_TEST_ID" \
        --network none --user 999:999 --tmpfs /data:uid=999,gid=999 --volume "$services_data/redis:/run/redis" \
        "$GUNPOWDER_REDIS_IMAGE" redis-server --port 0 --unixsocket /run/redis/redis.sock --unixsocketperm 777 \
        --save '' --hz 1 >/dev/null
    local try
    for try in $(seq 100); do
        # Process 1 is still the entrypoint while the cluster is made; that server is not the real one.
        if [ "$(docker exec "$GUNPOWDER_TEST_ID-postgres" cat /proc/1/comm 2>/dev/null)" = postgres ] &&
            docker exec "$GUNPOWDER_TEST_ID-postgres" pg_isready -q -h /run/postgresql -U gunpowder &&
            [ -S "$services_data/redis/redis.sock" ]; then
            return 0
        fi
        sleep 0.2
    done
    docker logs "$GUNPOWDER_TEST_ID-postgres" 2>&1 | tail -n 20
    docker logs "$GUNPOWDER_TEST_ID-redis" 2>&1 | tail -n 20
    echo "Postgres or Redis for the suite did not come up (after $try tries)" >&2
    return 1
}

stop_services() {
    docker rm --force --volumes "$GUNPOWDER_TEST_ID-postgres" "$GUNPOWDER_TEST_ID-redis" >/dev/null 2>&1 || true
}
