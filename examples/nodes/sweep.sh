#!/bin/sh
# An organization, its nodes, a sweep over all of them, and what it found.
#
#   examples/nodes/sweep.sh SLUG NETWORK TARGET...
#   examples/nodes/sweep.sh home 127.0.0.0/8 127.0.0.1
#
# On a machine that probes, which may be this one, in peerd.toml; then restart peerd there (docs/nodes.md):
#
#   [nodes]
#   prober = true
#   allowed_networks = ["127.0.0.0/8"]
#   allow_special = ["loopback"]        # only for 127.0.0.0/8; other networks need neither this nor --special
set -eu
slug=$1 network=$2
shift 2
case $network in 127.*) special='--special loopback' ;; *) special= ;; esac

# shellcheck disable=SC2086 # two words, or none
peerctl orgs add "$slug" --network "$network" $special

# Asking for a scan of what nobody has discovered makes a node, and says that it needs discovery: the sweep does both.
for target in "$@"; do
    peerctl nodes scan "$target" --org "$slug" 2> /dev/null || true
done
peerctl nodes sweep --org "$slug"
peerctl nodes list --org "$slug"
for target in "$@"; do
    peerctl nodes report "$target" --org "$slug" || true # one that failed has none; the list says why
done
