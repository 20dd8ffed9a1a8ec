# syntax=docker/dockerfile:1
# The images of docker-compose.yml: `docker compose build`, or `docker build --target authz-server .` for one of them.

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /src
RUN rustup target add wasm32-wasip1
COPY . .
# The caches are not part of any layer, so what is wanted is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package authz-server --bin authz-server && \
    cargo build --locked --release --package demo --bin gateway && \
    cargo build --locked --package filter --target wasm32-wasip1 --profile wasm && \
    cargo build --locked --release --package filter-native && \
    mkdir -p /out && \
    cp target/release/authz-server target/release/gateway target/wasm32-wasip1/wasm/filter.wasm \
        target/release/libsluice_filter_native.so /out/

# What the programs run on: glibc and nothing to log in to. They need no root and write no file.
FROM debian:bookworm-slim AS runtime
USER 65532:65532

FROM runtime AS authz-server
# Whom the server trusts when a policy service, a configuration service or signing keys are behind https.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /out/authz-server /usr/local/bin/authz-server
# 40023 listens on loopback, for an Envoy beside it, until SLUICE_GRPC_BIND says otherwise.
EXPOSE 40022 40023 40024
ENTRYPOINT ["/usr/local/bin/authz-server"]

FROM runtime AS gateway
COPY --from=builder /out/gateway /usr/local/bin/gateway
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/gateway", "--listen", "0.0.0.0:8080"]

# Envoy with the filter. Its configuration is mounted, since operators change it.
FROM envoyproxy/envoy:v1.40-latest AS envoy
COPY --from=builder --chmod=0644 /out/filter.wasm /opt/sluice/filter.wasm
EXPOSE 10000
CMD ["envoy", "--config-path", "/etc/envoy/envoy.yaml"]

# Envoy with the filter as a native module (docs/native-host.md), built against the C library of its own image or an older one.
FROM envoyproxy/envoy:v1.40-latest AS envoy-native
COPY --from=builder --chmod=0644 /out/libsluice_filter_native.so /opt/sluice/libsluice_filter_native.so
EXPOSE 10000
CMD ["envoy", "--config-path", "/etc/envoy/envoy-native.yaml"]
