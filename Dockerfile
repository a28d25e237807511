# The gateway as an image (docs/image.md).
#
#   gateway   what is built where no target is named: the gateway in front of a Riva or NIM elsewhere
#   laptop    the same with the model of the embedded recognizer, to try everything without a GPU
#
# A build needs a base with Python and the package index; nothing is compiled.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# ---- what is thrown away: pip, the build tools, the wheels ------------------------------------------------
FROM ${PYTHON_IMAGE} AS builder
ARG VERSION=0.1.0
# Seconds since 1970; it dates what is made here, so that the same input gives the same files.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
WORKDIR /build
COPY requirements/runtime.txt requirements/image.txt requirements/
# Every file is checked against its hash here; what follows installs from this folder alone.
RUN python3 -m pip download --quiet --require-hashes --only-binary :all: --dest wheels \
        --requirement requirements/runtime.txt \
    && python3 -m venv --without-pip tools \
    && python3 -m pip --python tools/bin/python install --quiet --require-hashes --only-binary :all: \
        --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY static static
COPY load load
COPY src src
COPY scripts/image scripts/image
RUN python3 -m pip --python tools/bin/python wheel --quiet --no-index --no-deps --no-build-isolation \
        --wheel-dir wheels . \
    && python3 -m venv --without-pip /opt/riva-gateway \
    && python3 -m pip --python /opt/riva-gateway/bin/python install --quiet --no-index --find-links wheels \
        --no-compile "riva-gateway[aws,vad]==${VERSION}" \
    && scripts/image/slim.sh /opt/riva-gateway laptop \
    && tools/bin/python scripts/image/sbom.py --environment /opt/riva-gateway --wheels wheels \
        --dpkg /var/lib/dpkg/status --version "${VERSION}" --epoch "${SOURCE_DATE_EPOCH}" --output sbom.cdx.json

# ---- what both images have in common ----------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS common
# Nothing here installs or builds (the gateway brings an environment of its own), and nobody becomes another user. The
# state folder suits the user, root without its powers, and the arbitrary users of OpenShift, who are in group 0.
RUN rm -rf /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/*-packages/* \
        /usr/local/bin/*pip* /usr/local/bin/wheel* /usr/local/bin/*-config \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && groupadd --gid 10001 riva \
    && useradd --no-log-init --uid 10001 --gid 10001 --home-dir /var/lib/riva-gateway --no-create-home \
        --shell /usr/sbin/nologin riva \
    && rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- \
    && install --directory --owner 10001 --group 0 --mode 0770 /var/lib/riva-gateway
COPY --from=builder /opt/riva-gateway /opt/riva-gateway
COPY --from=builder /build/sbom.cdx.json /usr/share/doc/riva-gateway/sbom.cdx.json
# AUTH is not set: on an address that others can reach the gateway wants a key, or to be told that it needs none. Nor is
# PORT, which is 8443 anyway: said here, it would win over the port that SageMaker asks for.
ENV PATH=/opt/riva-gateway/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/riva-gateway STATE_DIR=/var/lib/riva-gateway LISTEN_HOST=0.0.0.0 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/riva-gateway
VOLUME /var/lib/riva-gateway
EXPOSE 8443 50052
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/opt/riva-gateway/bin/python", "-I", "-m", "server.probe"]
ENTRYPOINT ["riva-gateway"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG SOURCE=
ARG REVISION=
LABEL org.opencontainers.image.title="riva-gateway" \
      org.opencontainers.image.description="The gateway in front of NVIDIA Riva / Speech NIM" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.bidirectional-streaming="true"

# ---- the two images ---------------------------------------------------------------------------------------
FROM common AS laptop
COPY --from=builder /build/laptop/ /

FROM common AS gateway
