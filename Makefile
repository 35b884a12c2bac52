# What a person does with a deployment; `make help` says it in a page. The work is done by infra/scripts, each of which can be called by itself.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export STACK PARAMS REGION QDRANT_IMAGE QDRANT_IMAGE_ARCHIVE DRY_RUN

.PHONY: help package deploy destroy show-host update-host rollback-host image-host keys-host

help: ## This page
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@printf '\n%s\n' 'REGION=… is the region (default: that of the AWS CLI). docs/operations/deploy.md goes through a first deployment.'

package: ## Build functions and worker for arm64 and pack the boot files; says what is missing
	@infra/scripts/package

deploy: ## STACK=name PARAMS=file [QDRANT_IMAGE=…] [QDRANT_IMAGE_ARCHIVE=file] [DRY_RUN=1]: upload what was packaged, create or update the stack
	@infra/scripts/deploy

destroy: ## STACK=name: delete the stack, and keep the backups, their keys, the secrets and the artefacts
	@infra/scripts/destroy

show-host: ## STACK=name: say what the running host has, and what it could go back to
	@infra/scripts/host show

update-host: ## STACK=name: put the worker and the boot files of the last deployment on the running host; nothing is restarted
	@infra/scripts/host update

rollback-host: ## STACK=name: go back to the worker and the boot files that the running host had before
	@infra/scripts/host rollback

image-host: ## STACK=name: change the running host to the image of the last deployment; Qdrant is restarted
	@infra/scripts/host image

keys-host: ## STACK=name: have the running host read its keys anew, after a rotation; Qdrant is restarted
	@infra/scripts/host keys
