# Builds the two images of Steelyard:
#
#   docker build --target controller -t ghcr.io/steelyard-lb/controller:0.1.0 .
#   docker build --target speaker -t ghcr.io/steelyard-lb/speaker:0.1.0 .
#
# The controller's holds one static program and nothing else: it reads its certificates from its service account. The
# speaker's has bgpd, which the speaker starts for BGP, and iptables too, in both variants: one backend writes its rules with them, and other proxies' rules are
# found by them.

# Compiles on the builder's own architecture for the target's, so that no emulation is needed.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY pkg pkg
COPY controller controller
COPY speaker speaker
COPY bgpd bgpd
ARG TARGETOS TARGETARCH
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN go build -trimpath -ldflags="-s -w" -o /out/ ./controller ./speaker ./bgpd

FROM scratch AS controller
COPY --from=build /out/controller /controller
USER 65532:65532
ENTRYPOINT ["/controller"]

FROM debian:bookworm-slim AS speaker
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/speaker /out/bgpd /
ENTRYPOINT ["/speaker"]
