#!/bin/sh
# Signs a scan with nothing but openssl, and posts it with curl.
#   post.sh KEY.pem FILE http://127.0.0.1:9205
# What is signed is the time in seconds, in decimal, followed by the bytes of the file.
set -eu
key=$1 file=$2 address=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
now=$(date +%s)
{ printf %s "$now"; cat "$file"; } > "$work/signed"
openssl pkeyutl -sign -rawin -inkey "$key" -in "$work/signed" -out "$work/signature"
# The last 32 bytes of an Ed25519 key in DER are the key.
public=$(openssl pkey -in "$key" -pubout -outform DER | tail -c 32 | base64 -w0)
printf '{"data_base64":"%s","public_key":"%s","signature":"%s","timestamp":%s}' \
    "$(base64 -w0 "$file")" "$public" "$(base64 -w0 "$work/signature")" "$now" > "$work/body"
curl -sS --data-binary @"$work/body" -H 'Content-Type: application/json' "$address/v1/mesh/ingest"
