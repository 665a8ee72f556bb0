# The application's dependencies, which change rarely: an image of their own, under the application's and the tests'.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/production.txt /tmp/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip_index \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    if [ -s /run/secrets/pip_index ]; then PIP_INDEX_URL=$(cat /run/secrets/pip_index); export PIP_INDEX_URL; fi; \
    python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check --no-cache-dir --require-hashes --no-deps --compile \
        --requirement /tmp/production.txt \
    && /opt/venv/bin/pip check

FROM ${BASE_IMAGE}
# iproute2: `ss -K` cuts a revoked user's WebSocket; tini: reaps and forwards signals.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates iproute2 python3 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 gunpowder \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin gunpowder
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1
WORKDIR /app
