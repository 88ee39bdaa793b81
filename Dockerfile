# Two stages: what builds the environment does not come along. `make container` builds it from this
# file and starts it, also where no engine runs; docs/container.md says how it is used.
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# pip is not needed to run, and is a third of the environment
RUN python3 -m venv /opt/arta-mcp \
    && /opt/arta-mcp/bin/python -m pip install --no-cache-dir --constraint constraints.txt '.[redis]' \
    && /opt/arta-mcp/bin/python -m pip uninstall --yes pip

FROM debian:trixie-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="arta-mcp" \
      org.opencontainers.image.description="MCP server that draws pictures from text" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.source="https://github.com/arta-mcp/arta-mcp" \
      org.opencontainers.image.documentation="https://arta-mcp.github.io/arta-mcp/container/" \
      org.opencontainers.image.licenses="MIT" \
      io.modelcontextprotocol.server.name="io.github.arta-mcp/arta-mcp"
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin arta \
    && install --directory --owner arta --group arta --mode 700 /data
COPY --from=build /opt/arta-mcp /opt/arta-mcp
COPY packaging/health.py /opt/arta-mcp/health.py
# Everything that is kept is in /data: the root file system may be read-only.
ENV PATH=/opt/arta-mcp/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    ARTA_STATE_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python3", "-I", "/opt/arta-mcp/health.py"]
ENTRYPOINT ["arta-mcp"]
