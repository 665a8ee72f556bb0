# Everything a person types. The work is in deploy/*.sh; `make help` lists the targets.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down purge test t faults attacks test-shell lint format requirements settings images logs ps shell

help: ## List the targets
	@printf 'make TARGET\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '%-16s %s\n' "  $$name" "$$text"; done
	@printf '\nSettings come from the environment, then from .env; .env.example lists them all.\n'

up: ## Start everything (engine, images, services, first workspace); safe to run again
	@bash deploy/up.sh up

down: ## Stop everything; loses nothing
	@bash deploy/up.sh down

purge: ## Delete everything, users' files included; asks first (PURGE=yes answers)
	@bash deploy/up.sh purge

test: ## Run all checks and the whole suite on the real thing (ARGS=… goes to pytest)
	@bash deploy/test.sh all $(ARGS)

t: ## Run pytest alone, for development: make t ARGS="tests/test_states.py -x"
	@bash deploy/test.sh pytest $(ARGS)

faults: export GUNPOWDER_FAULT_HOURS ?= 168
faults: export GUNPOWDER_FAULT_PEOPLE ?= 20
faults: export GUNPOWDER_FAULT_SEED ?= $(shell echo $$RANDOM$$RANDOM)
faults: ## The long form of the fault tests (GUNPOWDER_FAULT_HOURS=168 GUNPOWDER_FAULT_PEOPLE=20 GUNPOWDER_FAULT_SEED=…)
	@bash deploy/test.sh pytest tests/faults -n 0 -s $(ARGS)

attacks: export GUNPOWDER_ATTACK_CASES ?= 2000
attacks: export GUNPOWDER_ATTACK_SECONDS ?= 30
attacks: export GUNPOWDER_ATTACK_SEED ?= $(shell echo $$RANDOM$$RANDOM)
attacks: ## The long form of the attacks (GUNPOWDER_ATTACK_CASES=2000 GUNPOWDER_ATTACK_SECONDS=30 GUNPOWDER_ATTACK_SEED=…)
	@bash deploy/test.sh pytest tests/attacks -n 0 -s $(ARGS)

test-shell: ## A shell where the tests run
	@bash deploy/test.sh shell

lint: ## Linters, import contracts and types
	@bash deploy/test.sh run bash deploy/test/run lint

format: ## Format the code and fix what can be fixed
	@bash deploy/test.sh run bash -c 'ruff format . && ruff check --fix .'

requirements: ## Compile requirements/*.in with hashes (ARGS="--upgrade-package django")
	@bash deploy/test.sh run bash deploy/requirements.sh $(ARGS)

settings: ## Write .env.example and docs/settings.md from the settings themselves
	@bash deploy/test.sh run env GUNPOWDER_SETTINGS_MODE=build python -m gunpowder.settings.document

images: ## Build the images that are missing
	@bash deploy/engine.sh && bash deploy/images.sh

ps: ## The services and this stack's workspaces
	@docker compose ps && docker ps --filter "label=gunpowder.workspace" --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}'

logs: ## Follow the services' logs (ARGS="web worker")
	@docker compose logs --follow --tail 100 $(ARGS)

shell: ## A Django shell in the web service
	@docker compose exec web python manage.py shell
