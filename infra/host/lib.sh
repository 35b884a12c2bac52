# What the scripts of a host share. They source it.
# ROOT is empty on a host, and a directory in tests.
# shellcheck shell=bash disable=SC2034

ROOT=${ROOT:-}
home=$ROOT/opt/qdrant-backup
settings=$ROOT/etc/qdrant-backup/host.env
config=$ROOT/etc/qdrant-backup.toml
keys=$ROOT/run/qdrant-backup

say() { printf '%s\n' "$*"; }

# fail WHAT [HINT]
fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

# What the stack said when this host was launched, and what was changed on it since.
load_settings() {
  [ -r "$settings" ] || fail "$settings cannot be read" 'user data writes it at the first boot: /var/log/cloud-init-output.log says why it did not'
  # shellcheck source=/dev/null
  . "$settings"
  export AWS_REGION="${REGION:?is missing in $settings}"
  # A call that is not answered fails, and whoever made it tries again.
  export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=3
}

# is SHA256 FILE
is() { [ -f "$2" ] && printf '%s  %s\n' "$1" "$2" | sha256sum --check --status 2>/dev/null; }

is_hash() { [[ $1 =~ ^[0-9a-f]{64}$ ]]; }

# fetch KEY SHA256 FILE: an object of the artefact bucket. FILE is there afterwards if its bytes are those of the hash, and otherwise not.
fetch() {
  local key=$1 sha256=$2 file=$3 try size free
  ! is "$sha256" "$file" || return 0
  rm -f "$file"
  for try in 1 2 3; do
    [ "$try" = 1 ] || sleep "${PAUSE:-5}"
    size=$(aws s3api head-object --bucket "$ARTIFACT_BUCKET" --key "$key" --query ContentLength --output text) || continue
    [[ $size =~ ^[0-9]+$ ]] || continue
    free=$(df --output=avail --block-size=1 "$(dirname "$file")" | tail -1)
    if ((free < size + 16777216)); then
      say "s3://$ARTIFACT_BUCKET/$key is $size bytes, and $(dirname "$file") has room for $free" >&2
      return 1
    fi
    aws s3api get-object --bucket "$ARTIFACT_BUCKET" --key "$key" "$file.part" >/dev/null || continue
    if is "$sha256" "$file.part"; then
      mv "$file.part" "$file"
      return 0
    fi
    say "s3://$ARTIFACT_BUCKET/$key has another SHA-256 than $sha256" >&2
  done
  rm -f "$file.part"
  return 1
}

# link TARGET NAME: at any moment NAME is the former link or the new one.
link() {
  ln -sfn "$1" "$2.part"
  mv -T "$2.part" "$2"
}

# write FILE MODE: standard input becomes the file's content, in one moment. Nobody ever sees it with another mode or half of it, also after a power cut: its bytes
# are on the disk before its name is.
write() {
  local part
  part=$(mktemp "$1.XXXXXX")
  if cat >"$part" && chmod "$2" "$part" && sync "$part" && mv -T "$part" "$1"; then return 0; fi
  rm -f "$part"
  return 1
}
