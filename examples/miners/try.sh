#!/bin/sh
# A miner without hardware, from its plug to Active, with the daemon that runs on this machine.
#   try.sh DIR [NAME]
# DIR is what the daemon's configuration names: [devices] simulated = "DIR". NAME is forgotten again at the end.
set -eu
dir=$1 name=${2:-TRY_001}
work=$(mktemp -d)

# Plugged in: a pseudo-terminal on which a NerdMiner boots, twenty times as fast as a real one. It says its path.
peerd simulate miner --dir "$dir" --name "$name" --serial "SN-$name" --every 1 --speed 20 --boot-on-open \
    </dev/null >"$work/path" &
miner=$!
trap 'kill "$miner" 2>/dev/null || true; rm -rf "$work" "$dir/$name.json"' EXIT

# Ask again, for half a minute at most, until the answer says so.
until_it_says() {
    wanted=$1 tries=60
    shift
    until "$@" 2>/dev/null | grep -q "$wanted"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "it never said $wanted: $*" >&2; exit 1; }
        sleep 0.5
    done
}

# Discovery listens to it, until its pool has accepted it.
until_it_says /dev/pts/ cat "$work/path"
path=$(cat "$work/path")
until_it_says '"outcome": "mining"' peerctl devices show "$path" -o json
peerctl devices show "$path"

# With a name it is a miner; the monitor reads along, without a replug.
peerctl devices onboard "$path" --name "$name" --currency BTC --notes 'shelf 2'
until_it_says '^health *ok' peerctl devices show "$name"
peerctl devices top --once
peerctl devices tail "$name" | tail -n 8

# Pulled out it is Inactive, and says so. Its name and history go only when somebody says so.
kill -9 "$miner"
until_it_says '^status *inactive' peerctl devices show "$name"
peerctl devices show "$name"
peerctl devices forget "$name"
