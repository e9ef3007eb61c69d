#!/bin/sh
# Generates the messages of proto/ into the directory that the argument names, without comments of the generator's own.
# PROTOC names the compiler; `make proto` sets it.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
${PROTOC:-protoc} --proto_path="$here/../../proto" --plugin="protoc-gen-es=$here/node_modules/.bin/protoc-gen-es" \
    --es_out="$1" --es_opt=target=ts,import_extension=js equabot/broker/v1/broker.proto
