#!/bin/sh
# Signs a scan with nothing but openssl, and hands it in with buf curl.
#   submit.sh KEY.pem SCANNER AUDIENCE SCAN_ID FILE SOCKET
# KEY.pem is made with: openssl genpkey -algorithm ed25519 -out KEY.pem
# SCANNER is what 'peerctl scanners add' printed; AUDIENCE is the id of the peer ('peerctl status') or of its mesh.
set -eu
key=$1 scanner=$2 audience=$3 scan_id=$4 file=$5 socket=$6
type=application/vnd.peerd.scan.v1+json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the scanner says of the scan. These very bytes are signed, so they are never written anew.
printf '{"audience":"%s","scanner":"%s","scan_id":"%s","issued_at":"%s","nonce":"%s","data_sha256":"%s","data_size":"%d"}' \
    "$audience" "$scanner" "$scan_id" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(openssl rand -base64 24)" \
    "$(openssl dgst -sha256 -binary "$file" | base64 -w0)" "$(wc -c < "$file")" > "$work/statement"

# DSSE: the type, the payload and their lengths are signed together.
{ printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(wc -c < "$work/statement")"; cat "$work/statement"; } > "$work/signed"
openssl pkeyutl -sign -rawin -inkey "$key" -in "$work/signed" -out "$work/signature"

printf '{"envelope":{"payload":"%s","payloadType":"%s","signatures":[{"peerId":"%s","signature":"%s"}]},"data":"%s"}' \
    "$(base64 -w0 "$work/statement")" "$type" "$scanner" "$(base64 -w0 "$work/signature")" \
    "$(base64 -w0 "$file")" > "$work/request"
buf curl --protocol grpc --http2-prior-knowledge --unix-socket "$socket" --data @"$work/request" \
    http://localhost/peerd.v1.ScanService/Submit
