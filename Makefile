GO      ?= go
# The race detector needs a C compiler; without one the tests run all the same.
RACE    := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
FUZZTIME ?= 30s

.PHONY: build run test test-real bench bench-go bench-http bench-dns lint fuzz

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/kaiku ./cmd/kaiku

run: build
	bin/kaiku demo

test:
	$(GO) test $(RACE) ./...

# Needs nginx, dig, kdig, dnsperf, unbound, pdns_recursor and curl (Debian: nginx-light bind9-dnsutils knot-dnsutils dnsperf unbound
# pdns-recursor curl).
test-real: build
	$(GO) test -count=1 -tags real -run '^TestReal' ./...

# Side by side against the peers. bench-http takes about a quarter of an hour; BENCHFLAGS="-cases http3 -rounds 5" less, -skip-missing what is installed.
bench: bench-http

# Needs nginx, Varnish, Apache Traffic Server, wrk and h2load (Debian: nginx-light varnish trafficserver wrk nghttp2-client), and says how to install them.
bench-http: build
	cd bench/caddy && CGO_ENABLED=0 $(GO) build -trimpath -o ../../bin/caddy .
	$(GO) build -o bin/bench-http ./bench/http
	bin/bench-http -kaiku bin/kaiku -caddy bin/caddy $(BENCHFLAGS)

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Needs gdnsd, Knot DNS with its geoip module and dnsperf, and says how to install them.
bench-dns: build
	$(GO) run ./bench/dns -kaiku bin/kaiku $(BENCHFLAGS)

lint:
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
