# What a person does with a deployment; `make help` says it in a page. The work is done by infra/scripts, each of which can be called by itself.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export STACK PARAMS REGION QDRANT_IMAGE QDRANT_IMAGE_ARCHIVE DRY_RUN

.PHONY: help package deploy destroy show-host update-host rollback-host image-host keys-host doctor-host health-host log-host boot-host acknowledge-host

help: ## This page
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile
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

doctor-host: ## STACK=name: look at everything that a backup needs on the running host
	@infra/scripts/host doctor

health-host: ## STACK=name: does Qdrant serve, how full is the disk, how far is the boot
	@infra/scripts/host health

log-host: ## STACK=name: the last lines that Qdrant, the boot and tasks of the running host have logged
	@infra/scripts/host log

boot-host: ## STACK=name: have the running host take up a boot that is held
	@infra/scripts/host boot

acknowledge-host: ## STACK=name: say that the running host's data is right although it came from another backup than the published one
	@infra/scripts/host acknowledge
