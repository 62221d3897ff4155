GO      ?= go
# The race detector needs a C compiler. Without one, tests run without the race detector.
RACE    := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
FUZZTIME ?= 30s
# All builds use the same flags, so that programs, tests and checks share the build cache. Only the
# race detector needs C.
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)
export CGO_ENABLED := 0
# Leaves out the debug tables, which are 14 of 51 MB. Stack traces and profiles don't need them.
BUILD   := $(GO) build -ldflags "-s -w"

.PHONY: help check-go build run test test-real test-s3 first-hit bench bench-go bench-http bench-dns lab lint fuzz deb release

# check-go prints a useful error, where an older Go prints only "invalid go version".
WANT_GO := $(shell sed -n 's/^go //p' go.mod)

check-go:
	@have=$$($(GO) version 2>&1); echo "$$have" | awk -v want=$(WANT_GO) ' \
		/^go version / && match($$0, /go[0-9]+(\.[0-9]+)*/) { \
			split(substr($$0, RSTART + 2, RLENGTH - 2), h, "."); split(want, w, "."); \
			for (i = 1; i <= 3; i++) if (h[i] + 0 != w[i] + 0) exit h[i] + 0 < w[i] + 0; \
			exit 0 } \
		{ exit 1 }' && exit 0; \
	echo "Kaiku needs Go $(WANT_GO) or newer. \"$(GO) version\" prints:"; echo "    $$have"; \
	echo "Get Go from https://go.dev/dl/, and put its folder bin first in PATH, or give its path: make build GO=/usr/local/go/bin/go"; exit 1

help:
	@echo "make build      bin/kaiku"
	@echo "make run        build, and run the demo"
	@echo "make test       tests that need only Go"
	@echo "make test-real  tests against nginx, dig, curl and other programs, as root"
	@echo "make test-long  more of these, which take minutes"
	@echo "make lint       gofmt, vet, staticcheck"
	@echo "make fuzz       each fuzz target for FUZZTIME=$(FUZZTIME)"
	@echo "make bench      compares the edge with nginx, Varnish and others; see also bench-dns, bench-go"
	@echo "make lab        measures a fleet over a simulated ocean, and writes docs/finland.md; as root"
	@echo "make first-hit  measures the time from kaiku init to the first hit, as root"
	@echo "make deb        a Debian package in dist/"
	@echo "make release    programs for $(RELEASE_ARCHS) in dist/"

build: check-go
	@test -e bin/kaiku || echo "The first build downloads 80 MB of modules and takes some minutes."
	$(BUILD) -o bin/kaiku ./cmd/kaiku

run: build
	bin/kaiku demo

# The race detector makes tests slow. What it leaves out runs without it: the edge's tests over the
# other protocols, and what measures memory.
WITHOUT_RACE = $(shell sed -n 's/^func \(Test[A-Za-z0-9]*\)(t \*testing.T) { over.*/\1|/p' edge/*_test.go | tr -d '\n')TestMemoryOfIdle

test: check-go
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 25m $(if $(SKIP),-skip '$(SKIP)') ./...
	$(if $(RACE),@$(GO) test -parallel 4 -run '^($(WITHOUT_RACE))$$' ./edge ./edge/front/http2)

# Builds dist/kaiku_VERSION_ARCH.deb. Its units come from the same templates as those of `kaiku deploy`.
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
DEB_ARCH    ?= $(shell $(GO) env GOARCH)
DEB_VERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' || true)
export DEB_ARCH
export DEB_VERSION := $(or $(DEB_VERSION),0.0.0~$(shell git log -1 --format=%cd.%h --date=format:%Y%m%d 2>/dev/null || echo dev))
DIST        ?= dist
share       := dist/root/usr/share

deb:
	rm -rf dist/root && mkdir -p dist/root/usr/bin $(share)/man/man1 $(share)/bash-completion/completions $(share)/zsh/vendor-completions $(share)/fish/vendor_completions.d
	$(BUILD) -o dist/kaiku-here ./cmd/kaiku
	GOARCH=$(DEB_ARCH) $(BUILD) -o dist/root/usr/bin/kaiku ./cmd/kaiku
	dist/kaiku-here units --package --root dist/root
	dist/kaiku-here man $(share)/man/man1
	gzip -9n $(share)/man/man1/*.1
	dist/kaiku-here completion bash >$(share)/bash-completion/completions/kaiku
	dist/kaiku-here completion zsh >$(share)/zsh/vendor-completions/_kaiku
	dist/kaiku-here completion fish >$(share)/fish/vendor_completions.d/kaiku.fish
	$(GO) run $(NFPM) package --config deploy/nfpm.yaml --packager deb --target $(DIST)

# Builds the released programs in dist/, for `kaiku deploy --binary dist`. They are static and
# stripped, and the same commit and Go version give the same bytes. Also writes SHA256SUMS, and a
# bill of materials for each program (CycloneDX).
CYCLONEDX     := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0
RELEASE_ARCHS ?= amd64 arm64

release: check-go
	mkdir -p $(DIST) && rm -f $(DIST)/kaiku-linux-* $(DIST)/SHA256SUMS
	set -e; for arch in $(RELEASE_ARCHS); do \
		out=$(DIST)/kaiku-linux-$$arch; echo $$out; \
		GOOS=linux GOARCH=$$arch GOFLAGS=-trimpath $(BUILD) -o $$out ./cmd/kaiku; \
		$(GO) run $(CYCLONEDX) bin -json -noserial -output $$out.new $$out; \
		at=$$(git log -1 --format=%cI 2>/dev/null || echo 1970-01-01T00:00:00Z); \
		sed 's/"timestamp": "[^"]*"/"timestamp": "'$$at'"/' $$out.new >$$out.cdx.json; rm $$out.new; \
	done
	cd $(DIST) && sha256sum kaiku-linux-* >SHA256SUMS

# Needs nginx, dig, kdig, dnsperf, unbound, pdns_recursor, curl, h2load, openssl, chromium, ffmpeg,
# adduser, systemd-analyze, systemd-socket-activate, sshd, ssh, ssh-keygen, ip, nsenter, setpriv,
# script, apache2, node and python3 (Debian: nginx-light bind9-dnsutils knot-dnsutils dnsperf unbound pdns-recursor curl
# nghttp2-client openssl chromium ffmpeg adduser systemd openssh-server openssh-client iproute2
# util-linux bsdutils apache2-bin nodejs python3). REAL_SKIP=EXPRESSION leaves some out.
test-real: build
	$(GO) test -count=1 -p 1 -timeout 45m -tags real -run '^TestReal' $(if $(REAL_SKIP),-skip '$(REAL_SKIP)') ./...
	cd bench/grpc && $(GO) test -count=1 -timeout 5m ./...

# Tests private buckets against a real S3 server, which takes three minutes of a core to build.
test-s3: build
	cd bench/s3 && $(GO) test -count=1 -timeout 10m ./...

# Tests that take minutes: the rotation of secrets, interrupted by Ctrl-C. test-real covers most of it.
test-long: build
	$(GO) test -count=1 -p 1 -timeout 30m -tags real -run '^TestLong' ./...

# Measures the time from kaiku init to the first hit over HTTPS from the nearest edge, for a fleet of
# three nodes. Needs Linux, root, and the programs that TestRealDeploy needs.
first-hit: check-go
	$(GO) test -count=1 -timeout 5m -tags real -run '^TestRealFirstHit$$' -v ./cmd/kaiku

# Compares Kaiku with other servers in one run. bench-http takes about a quarter of an hour.
# BENCHFLAGS="-cases http3 -rounds 5" takes less. -skip-missing leaves out servers that are not
# installed. BENCHFLAGS="-cases growth" measures how the cost grows.
bench: bench-http

# Needs nginx, Varnish, Apache Traffic Server, wrk and h2load (Debian: nginx-light varnish
# trafficserver wrk nghttp2-client), and prints how to install them.
bench-http: build
	cd bench/caddy && $(GO) build -o ../../bin/caddy .
	$(GO) build -o bin/bench-http ./bench/http
	bin/bench-http -kaiku bin/kaiku -caddy bin/caddy $(BENCHFLAGS)

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Needs gdnsd, Knot DNS with its geoip module and dnsperf, and prints how to install them.
bench-dns: build
	$(GO) run ./bench/dns -kaiku bin/kaiku $(BENCHFLAGS)

# Measures a fleet over a simulated ocean, and tests the promise of purges under faults. Takes an hour
# and a half. Needs Linux, root, nginx, pdns_recursor, sshd, ssh-keygen, ip, unshare, setpriv, mkfs.ext4
# and losetup (Debian: nginx-light pdns-recursor openssh-server openssh-client iproute2 util-linux
# e2fsprogs mount). LABFLAGS="-short" takes five minutes. LABFLAGS="-parts feel", "-parts promise"
# or "-parts faults -fault edge-cut" runs a part. Without LABFLAGS it writes docs/finland.md.
LABFLAGS ?= -doc docs/finland.md -svg docs/finland.svg -json bin/finland.json -out bin/finland.txt

lab: build
	$(GO) build -o bin/lab ./bench/lab
	bin/lab -kaiku bin/kaiku $(LABFLAGS)

lint: check-go
	@test -z "$$(gofmt -l .)" || { gofmt -l . ; echo "gofmt: the files above are not formatted"; exit 1; }
	$(GO) vet -tags real ./...
	$(GO) tool staticcheck -tags real ./...

# Each fuzz target in turn; go test takes one at a time.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; \
	done
