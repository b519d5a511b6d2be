.DEFAULT_GOAL := help
SHELL := /bin/bash
# One setting for programs and tests, so that they share the compiled packages.
export CGO_ENABLED := 0

help: ## Show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Start a cluster, install Steelyard, serve a Service, survive a node's failure; under 2 minutes once built
	@go run ./e2e/demo

test: check ## Run every test, in a real cluster too (as root)
	STEELYARD_HELM=$$(go run ./e2e/lab program helm) go test -count=1 -p 1 -timeout 60m ./e2e/...

check: ## Format, vet, lint, generated files, unit and packet tests
	@hack/check

ctl: ## Build bin/steelyardctl, and bin/kubectl-steelyard for `kubectl steelyard`
	@go build -trimpath -ldflags="-s -w" -o bin/steelyardctl ./ctl
	@ln -sf steelyardctl bin/kubectl-steelyard

generate: ## Write the generated files anew
	@hack/generate

lab: ## Start a cluster to play with; `go run ./e2e/lab` shows what to do with it
	@go run ./e2e/lab up
	@go run ./e2e/lab install

bench: ## Measure what the documentation claims
	@go test -run '^$$' -bench Assign ./pkg/ipam
	@go run ./e2e/bench

bench-dataplane: ## Measure the dataplane beside kube-proxy's (as root); about 15 minutes
	@go run ./e2e/bench/dataplane

.PHONY: help demo test check ctl generate lab bench bench-dataplane
