#!/bin/sh
# Deletes the generated code of an installed `kubernetes` package that the broker never imports: the blocking client, and
# the models and API classes of the asynchronous one. Takes the directory that holds the package. See docs/adr/0043.
set -eu
package=$1/kubernetes
test -f "$package/aio/client/api_client.py" # else the package is arranged in another way: look before deleting
rm -rf "$package/client" "$package/aio/client/api" "$package/aio/client/models/__pycache__"
find "$package/aio/client/models" -mindepth 1 ! -name __init__.py -delete
