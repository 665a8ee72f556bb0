#!/usr/bin/env bash
# Compiles requirements/*.in to *.txt with hashes (make requirements). ARGS go to pip-compile, such as --upgrade or
# --upgrade-package django. Runs in the test image, whose Python is the one that will install the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"

# No index, find-links or host lines: where packages come from is the machine's business.
export CUSTOM_COMPILE_COMMAND="make requirements"
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
export PIP_CONFIG_FILE=/dev/null
for name in base production dev; do
    printf 'requirements/%s.txt\n' "$name"
    ${COMPILER:-pip-compile} --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
        --no-emit-find-links --no-emit-trusted-host --output-file "$name.txt" "$@" "$name.in"
done
