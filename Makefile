# Gleaner. `make help` lists what there is; `make demo` shows what it does.
# Folders with C or other files of their own add to this through <folder>/build.mk (variables at the end of this part).

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD   := build
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
GO      ?= go
CC      ?= gcc
CFLAGS  ?= -std=c11 -O2 -g -Wall -Wextra -Werror
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

GOLANGCI_VERSION := v2.15.0
GOFLAGS_BUILD    := -trimpath -ldflags "-X main.version=$(VERSION)"
GOFLAGS_LEAN     := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Packages: what building, testing and the cluster need. Fragments append.
APT_PACKAGES := gcc libc6-dev make git pkg-config curl ca-certificates slurmctld slurmd slurm-client slurmrestd slurm-wlm-basic-plugins libslurm-dev \
	munge libmunge2 libfabric1 libfabric-dev libseccomp-dev libjpeg62-turbo-dev protobuf-compiler libprotobuf-dev
DNF_PACKAGES := gcc glibc-devel glibc-static make git pkgconf-pkg-config curl ca-certificates slurm slurm-slurmctld slurm-slurmd slurm-slurmrestd slurm-devel \
	munge munge-libs libfabric libfabric-devel libseccomp-devel libjpeg-turbo-devel protobuf-compiler protobuf-devel
# Wanted, but nothing fails without them: what needs them skips.
APT_OPTIONAL := slurm-wlm-jwt-plugin

BUILD_TARGETS :=
C_TESTS       :=

BIN_GO     := $(filter-out gleaner-images,$(notdir $(patsubst %/,%,$(sort $(dir $(wildcard cmd/gleaner*/*.go))))))

-include $(sort $(wildcard */build.mk */*/build.mk))

##@ Everyday

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: deps
deps: ## install what is missing (Debian, as root); elsewhere print the list
	@contrib/deps/install "$(APT_PACKAGES)" "$(APT_OPTIONAL)" "$(DNF_PACKAGES)"

.PHONY: build
build: go-build $(BUILD_TARGETS) ## everything, under build/ laid out like an installation

# Go knows itself what is up to date.
BIN_TARGETS := $(BIN_GO:%=go-bin-%)
.PHONY: go-build go-launch go-tools $(BIN_TARGETS)
go-build: $(BIN_TARGETS) go-tools $(if $(wildcard cmd/launch/*.go),go-launch)

$(BIN_TARGETS): go-bin-%:
	@mkdir -p $(BUILD)/bin
	@$(GO) build $(GOFLAGS_BUILD) -o $(BUILD)/bin/ ./cmd/$*

go-launch:
	@mkdir -p $(BUILD)/libexec/gleaner
	@$(GO) build -tags seccomp $(GOFLAGS_LEAN) -o $(BUILD)/libexec/gleaner/launch ./cmd/launch

go-tools:
	@mkdir -p $(BUILD)/tools
	@$(GO) build -trimpath -o $(BUILD)/tools/ ./test/cluster/cmd/cluster ./test/tally ./test/witness

.PHONY: test
test: deps build go-stepped $(C_TESTS) ## C tests, vet, Go tests with -race, and the end-to-end suite on a real Slurm cluster
	@test/all $(C_TESTS)

FUZZTIME ?= 60s
.PHONY: test-long
test-long: test fuzz-c ## test, and each parser fuzzed for FUZZTIME=60s, FUZZ_SECONDS=60
	@test/fuzz $(FUZZTIME) "seccomp $(IMAGES_TAGS)"

FAULTS ?= 500
.PHONY: test-faults
test-faults: build go-stepped ## the fault suite alone: FAULTS=500 GLEANER_SEED=(drawn) FAULT_KINDS=(all, or "kill", "stop agentd")
	FAULTS="$(FAULTS)" FAULT_KINDS="$(FAULT_KINDS)" $(GO) test -count=1 -timeout 2h -run TestFaults -v ./test/faults

.PHONY: check
check: $(BUILD)/tools/golangci-lint ## gofmt, vet, golangci-lint; generated code is up to date
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt has something to say about:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags seccomp ./...
	$(BUILD)/tools/golangci-lint run ./...
	@rm -rf $(BUILD)/generated; contrib/deps/generate $(BUILD)/generated
	@for f in $(BUILD)/generated/*.go; do \
		cmp -s $$f api/$${f##*/} || { echo "api/$${f##*/} is not what make generate makes"; exit 1; }; done
	@rm -r $(BUILD)/generated
	@echo "check: clean"

.PHONY: bench
bench: build ## Go benchmarks, and the folders' own
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms $$($(GO) list ./... | grep -v /test/)
	@for b in $(BENCHES); do echo "--- $$b"; $$b; done

.PHONY: demo
demo: deps build ## the whole story on a real cluster, in under 3 minutes
	@demo/run

##@ A Slurm cluster on this machine (root)

NODES   ?= 4
MODE    ?= virtual
DIR     ?= .cluster
WITHOUT ?=

.PHONY: cluster-up
cluster-up: build ## NODES=4 MODE=virtual|cgroup DIR=.cluster WITHOUT="agentd gate"
	@$(BUILD)/tools/cluster up -dir "$(DIR)" -build "$(CURDIR)/$(BUILD)" -nodes "$(NODES)" -mode "$(MODE)" -without "$(WITHOUT)"

.PHONY: cluster-down
cluster-down: $(BUILD)/tools/cluster ## leaves no process, mount, cgroup or file
	@$(BUILD)/tools/cluster down -dir "$(DIR)"

.PHONY: cluster-env
cluster-env: $(BUILD)/tools/cluster ## for eval "$(make -s cluster-env)"
	@$(BUILD)/tools/cluster env -dir "$(DIR)"

.PHONY: cluster-tool
cluster-tool $(BUILD)/tools/cluster:
	@mkdir -p $(BUILD)/tools
	@$(GO) build -trimpath -o $(BUILD)/tools/cluster ./test/cluster/cmd/cluster

##@ Maintenance

.PHONY: generate
generate: ## api/*.pb.go from api/*.proto
	contrib/deps/generate api

$(BUILD)/tools/golangci-lint:
	@mkdir -p $(BUILD)/tools
	GOBIN="$(CURDIR)/$(BUILD)/tools" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: install
install: build ## DESTDIR= PREFIX=/usr/local SYSCONFDIR=/etc PLUGINDIR=(Slurm's)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" PLUGINDIR="$(PLUGINDIR)" contrib/deps/install-files $(BUILD)

.PHONY: clean
clean: ## remove build/
	rm -rf $(BUILD)
