# shellcheck shell=bash
# What the scripts have in common. A script sources it from the root of the repository, after `set -euo pipefail`.

[ "${BASH_VERSINFO[0]}" -ge 5 ] || { echo 'error: these scripts need bash 5 or newer (on macOS: brew install bash)' >&2; exit 1; }
# A failure in $(…) is a failure.
shopt -s inherit_errexit

# Nobody pages through an answer that a script waits for.
export AWS_PAGER=

# The name of a stack: the names of all that it makes begin with it, and some of them are short.
NAME_PATTERN='^[a-z][a-z0-9-]{1,23}$'

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }

# fail MESSAGE…: one line each; the first says what is wrong, those that follow what to do.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

need_program() {
  command -v "$1" >/dev/null || fail "$1 is not installed" "$2"
}

# The AWS CLI with the region that was asked for.
aws_() {
  if [ -n "${REGION:-}" ]; then aws --region "$REGION" "$@"; else aws "$@"; fi
}

need_stack_name() {
  [ -n "${STACK:-}" ] || fail 'STACK is missing' "say which: $1"
  [[ $STACK =~ $NAME_PATTERN ]] || fail "STACK=$STACK cannot be the name of a stack" \
    'it must be 2 to 24 lower-case letters, digits and dashes, and begin with a letter, as qdrant-prod'
}

# Who and where: sets ACCOUNT and PARTITION, and REGION where it was not given.
need_account() {
  need_program aws 'install the AWS CLI (https://aws.amazon.com/cli/), version 2.13 or newer, and sign in'
  if [ -z "${REGION:-}" ]; then
    REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
    [ -n "$REGION" ] || fail 'no region is given' 'say REGION=… or set one: aws configure set region …'
  fi
  local arn
  arn=$(aws_ sts get-caller-identity --query Arn --output text) || fail 'the AWS CLI has no valid credentials' 'sign in, and look at: aws sts get-caller-identity'
  PARTITION=$(cut -d: -f2 <<<"$arn")
  ACCOUNT=$(cut -d: -f5 <<<"$arn")
  # State machines name the services that they call with their partition.
  [ "$PARTITION" = aws ] || fail "the partition $PARTITION is not one that this can be deployed to" 'the state machines and the conditions of policies are for the partition aws'
  say "account $ACCOUNT ($PARTITION), region $REGION, as $arn"
}

sha256_of() { sha256sum "$1" | cut -d' ' -f1; }

# The status of a stack, or ABSENT. Any other answer of AWS than that there is none is an error: it would be a reason for a second deployment.
stack_status() {
  local said
  if said=$(aws_ cloudformation describe-stacks --stack-name "$1" --query 'Stacks[0].StackStatus' --output text 2>&1); then
    say "$said"
  elif [[ $said == *'does not exist'* ]]; then
    say ABSENT
  else
    fail "the stack $1 cannot be looked at" "$said"
  fi
}

# Waits while something is done to a stack, by an earlier run that was interrupted for instance, and says its status then.
settled_status() {
  local status
  while :; do
    status=$(stack_status "$1")
    case $status in
      REVIEW_IN_PROGRESS | *_COMPLETE | *_FAILED | ABSENT) break ;;
      *_IN_PROGRESS) say "stack $1 is $status; waiting" >&2 ;;
      *) fail "the stack $1 is $status, which this script does not know" ;;
    esac
    sleep "${POLL_SECONDS:-15}"
  done
  say "$status"
}

# A parameter that a stack was deployed with; nothing where there is no stack.
stack_parameter() {
  aws_ cloudformation describe-stacks --stack-name "$1" --query "Stacks[0].Parameters[?ParameterKey=='$2'].ParameterValue" --output text
}

stack_output() {
  aws_ cloudformation describe-stacks --stack-name "$1" --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue" --output text
}

# The ids of a stack and of those nested in it: an id is known to AWS after the stack is gone, a name is not.
stack_ids() {
  aws_ cloudformation describe-stacks --stack-name "$1" --query 'Stacks[0].StackId' --output text
  aws_ cloudformation list-stack-resources --stack-name "$1" \
    --query "StackResourceSummaries[?ResourceType=='AWS::CloudFormation::Stack' && PhysicalResourceId].PhysicalResourceId" --output text | tr '\t' '\n' | sed '/^\(None\)\?$/d'
}

# Why a stack failed: what failed in it and in those nested in it, the oldest first, for that is the cause.
why() {
  local id
  say 'What failed, the first cause first:'
  for id in $(stack_ids "$1"); do
    aws_ cloudformation describe-stack-events --stack-name "$id" \
      --query "StackEvents[?ends_with(ResourceStatus,'_FAILED')].[Timestamp,LogicalResourceId,ResourceType,ResourceStatusReason]" --output text || true
  done | sort -u | sed -n '/Resource \(creation\|update\) cancelled/!s/^/  /p' | head -20 || true
}
