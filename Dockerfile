# Must work with Docker Engine 20.10's own BuildKit frontend: no `# syntax` line, no start-interval.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
# Two optional build secrets, which no layer contains: pip's configuration (mirror, credentials) and
# a CA bundle. The virtual environment has no pip, so the runtime image has none.
# EXTRAS=observability installs another lock, which adds the packages for Sentry and OpenTelemetry.
ARG EXTRAS=
RUN --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    --mount=type=bind,source=requirements-observability.txt,target=/tmp/requirements-observability.txt \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -f /run/secrets/ca_bundle ]; then \
        export PIP_CERT=/run/secrets/ca_bundle SSL_CERT_FILE=/run/secrets/ca_bundle; \
    fi \
 && python -m venv --without-pip /venv \
 && python -m pip --python /venv/bin/python install --no-deps --require-hashes \
        --only-binary :all: --requirement "/tmp/requirements${EXTRAS:+-$EXTRAS}.txt" \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib
WORKDIR /app
COPY . .
RUN rm requirements*.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /app
# A Dockerfile cannot compute the label below, so the builder passes it. A wrong value fails the build.
ARG SCHEMA_HEAD=
RUN head=$(DATA_DIR=/tmp /venv/bin/flask amani schema-head) \
 && if [ "${SCHEMA_HEAD:-$head}" != "$head" ]; then \
        echo "SCHEMA_HEAD=$SCHEMA_HEAD, but the migrations end at $head" >&2; exit 1; \
    fi
ARG BUILD_VERSION=unknown BUILD_SHA=unknown BUILD_TIME=unknown BUILD_NUMBER=unknown BUILD_BRANCH=unknown
RUN printf '{"version":"%s","commit":"%s","build_time":"%s","build_number":"%s","branch":"%s"}\n' \
        "$BUILD_VERSION" "$BUILD_SHA" "$BUILD_TIME" "$BUILD_NUMBER" "$BUILD_BRANCH" \
        > build-info.json

# The same base image, because the virtual environment's python is a link into it.
FROM ${PYTHON_IMAGE} AS runtime
# Some Python images lack the standard library's bytecode, and the process cannot write any, so every
# boot would compile it again.
RUN python -m compileall -q -j 0 -x '/(test|tests|idlelib|lib2to3|ensurepip|turtledemo|site-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && groupadd --gid 10001 amani \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin amani \
 && install -d -o 10001 -g 10001 /data
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    DATA_DIR=/data
COPY --from=builder /venv /venv
COPY --from=builder /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-IS", "/app/amani_app/healthcheck.py"]
CMD ["gunicorn", "wsgi:app"]

ARG BUILD_VERSION=unknown BUILD_SHA=unknown BUILD_TIME=unknown SCHEMA_HEAD= SCHEMA_REVISIONS=
LABEL org.opencontainers.image.title="amani" \
      org.opencontainers.image.description="Amani, the escrow service for freelancers" \
      org.opencontainers.image.source="https://github.com/amani/amani" \
      org.opencontainers.image.version="${BUILD_VERSION}" \
      org.opencontainers.image.revision="${BUILD_SHA}" \
      org.opencontainers.image.created="${BUILD_TIME}" \
      amani.schema.head="${SCHEMA_HEAD}" \
      amani.schema.revisions="${SCHEMA_REVISIONS}"
