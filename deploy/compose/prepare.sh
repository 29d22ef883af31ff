#!/bin/sh
# Makes what compose.yaml needs and no repository may hold: passwords, the Sentinels' files, and a tenant to begin with.
# All of it goes into the folder `secrets` beside this script, which must not exist. The tenant's API key is printed
# once and is nowhere else.
#
# RISER is the program that makes the tenant's keys: `riser`, unless it says otherwise.
set -eu
riser=${RISER:-riser}
cd "$(dirname "$0")"

if [ -e secrets ]; then
    echo "prepare.sh: $(pwd)/secrets is there already; remove it to begin anew" >&2
    exit 1
fi

secret() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
mkdir secrets secrets/edge secrets/control
nats=$(secret) control=$(secret) routes=$(secret) redis=$(secret) admin=$(secret)

{
    echo "RISER_NATS_PASSWORD=$nats"
    echo "RISER_CONTROL_NATS_PASSWORD=$control"
    echo "NATS_ROUTES_PASSWORD=$routes"
    echo "NATS_ROUTES=[nats://route:$routes@nats-0:6222, nats://route:$routes@nats-1:6222, nats://route:$routes@nats-2:6222]"
} > secrets/nats.env

# What an edge may: its own keys, and the commands that its scripts and its watch over the server need.
{
    echo "user default on >$admin ~* &* +@all"
    echo "user edge on >$redis ~riser:* resetchannels -@all +@read +@write +@scripting +@connection -@dangerous +time +info +role"
    echo "masteruser default"
    echo "masterauth $admin"
} > secrets/redis-auth.conf

for n in 0 1 2; do
    mkdir "secrets/sentinel-$n"
    {
        cat ../redis/sentinel.conf
        echo "sentinel monitor riser redis-0 6379 2"
        echo "sentinel auth-user riser default"
        echo "sentinel auth-pass riser $admin"
        echo "sentinel down-after-milliseconds riser 3000"
        echo "sentinel failover-timeout riser 10000"
    } > "secrets/sentinel-$n/sentinel.conf"
done

# new-key prints the key, and on standard error what the tenants file is to hold of it.
key=$("$riser" tenants new-key 2> secrets/new-key)
hash=$(sed -n 's/^sha256 = "\([0-9a-f]*\)"$/\1/p' secrets/new-key)
rm secrets/new-key
"$riser" tenants new-secret > secrets/edge/home.secret
cat > secrets/edge/tenants.toml <<TENANTS
[tenants.home]
signing_keys = [{ kid = "one", secret_file = "home.secret" }]

[[tenants.home.api_keys]]
name = "first"
sha256 = "$hash"
scope = ["*/*:read,command,event,listen,speak"]
TENANTS

printf '%s' "$nats" > secrets/edge/nats.password
printf '%s' "$control" > secrets/control/nats.password
printf '%s' "$redis" > secrets/edge/redis.password

# What is mounted is read by the containers' own users; the folder itself is nobody else's.
chmod 755 secrets/edge secrets/control
chmod 644 secrets/edge/* secrets/control/* secrets/redis-auth.conf

echo "the API key of the tenant home, shown once: $key"
