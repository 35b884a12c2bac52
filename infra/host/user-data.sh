# What every host runs at its first boot, behind the lines that write /etc/qdrant-backup/host.env (infra/stacks/host.yaml has both). It only makes a
# unit that fetches the boot files by their hash and has them install the rest. The unit tries again until that has succeeded, whatever is missing.
set -euo pipefail
umask 022
home="${ROOT:-}/opt/qdrant-backup"
mkdir -p "$home" "${ROOT:-}/etc/systemd/system"

# First of all: the host of a drill ends by itself when nobody ends it, whether anything else of this works or not. Powering off terminates it (the launch template).
if grep -qx ROLE=staging "${ROOT:-}/etc/qdrant-backup/host.env"; then
  cat >"${ROOT:-}/etc/systemd/system/qdrant-expiry.service" <<'UNIT'
[Unit]
Description=Power this staging host off

[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl poweroff
UNIT
  cat >"${ROOT:-}/etc/systemd/system/qdrant-expiry.timer" <<'UNIT'
[Unit]
Description=Power this staging host off 20 hours after its boot

[Timer]
OnBootSec=20h

[Install]
WantedBy=timers.target
UNIT
  systemctl daemon-reload
  systemctl enable --now qdrant-expiry.timer
fi

cat >"$home/first-boot" <<'SCRIPT'
#!/bin/bash
# Fetches the boot files and has them install what this host was launched with. When that has been done there is nothing to do, at no later boot.
set -euo pipefail
home="${ROOT:-}/opt/qdrant-backup"
[ ! -e "$home/installed" ] || exit 0
. "${ROOT:-}/etc/qdrant-backup/host.env"
export AWS_REGION="$REGION"
fetched="$home/boot.tar.gz"
says() { echo "$BOOT_FILES_SHA256  $fetched" | sha256sum --check --status 2>/dev/null; }
if ! says; then
  aws s3api get-object --bucket "$ARTIFACT_BUCKET" --key "boot/$BOOT_FILES_SHA256/boot.tar.gz" "$fetched" >/dev/null
  if ! says; then
    rm -f "$fetched"
    echo "s3://$ARTIFACT_BUCKET/boot/$BOOT_FILES_SHA256/boot.tar.gz has another SHA-256 than its key says: nothing of it is run" >&2
    exit 1
  fi
fi
rm -rf "$home/first"
mkdir "$home/first"
tar --extract --gzip --no-same-owner --file "$fetched" --directory "$home/first"
"$home/first/release" update "$WORKER_SHA256" "$BOOT_FILES_SHA256"
[ -e "$home/installed" ] || { echo "release $WORKER_SHA256 $BOOT_FILES_SHA256 ended well, and installed nothing" >&2; exit 1; }
rm -rf "$home/first" "$fetched"
SCRIPT
chmod 755 "$home/first-boot"

cat >"${ROOT:-}/etc/systemd/system/qdrant-install.service" <<'UNIT'
[Unit]
Description=Install qdrant-backup at the first boot
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0
ConditionPathExists=!/opt/qdrant-backup/installed

[Service]
Type=oneshot
ExecStart=/opt/qdrant-backup/first-boot
Restart=on-failure
RestartSec=20
TimeoutStartSec=30min
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
UNIT

systemctl daemon-reload
systemctl enable qdrant-install.service
systemctl start --no-block qdrant-install.service
