# shellcheck shell=bash
# The parameters of a deployment: read from a file of Key=Value lines, completed from the template and from AWS, and checked for what neither a pattern nor a rule
# of CloudFormation can say. CloudFormation checks patterns, allowed values and rules again; it looks at nothing but the template.

declare -A parameters=() # what is deployed: every parameter of the template has a value here, so that a line removed from the file means the default again
declare -A defaults=() # those of the template; a parameter without one is in `names` only
names=()

# What `deploy` fills in by itself, from what was packaged.
FILLED_IN=' ArtifactBucket WorkerSha256 BootFilesSha256 QdrantImageSha256 '

# Names and defaults, from the template's text. The template is ours and its shape is fixed (a test compares this with a YAML parser's answer).
read_template_parameters() {
  local name default
  while IFS=$'\t' read -r name default; do
    names+=("$name")
    [ "$default" = '!' ] || defaults[$name]=${default#=}
  done < <(awk '
    function flush() { if (name != "") printf "%s\t%s\n", name, (has ? "=" value : "!") }
    /^[A-Z]/ { flush(); name = ""; on = ($0 ~ /^Parameters:/) }
    on && /^  [A-Za-z0-9]+:$/ { flush(); name = $1; sub(/:$/, "", name); has = 0; value = "" }
    on && /^    Default: / { has = 1; value = $0; sub(/^    Default: /, "", value); if (value ~ /^\047.*\047$/) value = substr(value, 2, length(value) - 2) }
    END { flush() }
  ' "$1")
  [ ${#names[@]} -gt 0 ] || fail "$1 has no parameters that can be read"
}

# read_parameters FILE TEMPLATE
read_parameters() {
  local file=$1 line key value number=0
  local -A seen=()
  [ -r "$file" ] || fail "the file of parameters $file cannot be read" 'copy infra/parameters.example and fill it in'
  read_template_parameters "$2"
  for key in "${names[@]}"; do
    if [ -n "${defaults[$key]+given}" ]; then parameters[$key]=${defaults[$key]}; fi
  done
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=${line%$'\r'}
    line=${line#"${line%%[![:space:]]*}"}
    line=${line%"${line##*[![:space:]]}"}
    case $line in '' | '#'*) continue ;; esac
    [[ $line =~ ^([A-Za-z0-9]+)=(.*)$ ]] || fail "$file, line $number is no Key=Value: $line" 'a comment begins with #, and there are no spaces around ='
    key=${BASH_REMATCH[1]}
    value=${BASH_REMATCH[2]}
    [[ ! $value =~ [[:space:]]# ]] || fail "$file, line $number: a comment has a line of its own, or it would be part of $key"
    [[ " ${names[*]} " == *" $key "* ]] || fail "$file, line $number: there is no parameter $key" "infra/README.md has a table of all of them"
    [[ $FILLED_IN != *" $key "* ]] || fail "$file, line $number: $key is filled in by make deploy, from what was packaged" 'remove the line'
    [ -z "${seen[$key]+seen}" ] || fail "$file, line $number: $key is given twice, first in line ${seen[$key]}"
    seen[$key]=$number
    parameters[$key]=$value
  done <"$file"
  for key in "${names[@]}"; do
    [[ $FILLED_IN == *" $key "* || $key = AvailabilityZone ]] || [ -n "${parameters[$key]+given}" ] || fail "$file does not say $key, which has no default"
  done
}

# What the numbers and keys say of each other.
check_parameters() {
  local every=0 marker=${parameters[SuccessMarkerKey]} prefix=${parameters[Prefix]} number
  for number in NoncurrentDays ObjectLockDays RpoSeconds RtoSeconds LowDiskPercent RootVolumeGiB AbortUploadsDays InfrequentAccessDays LogRetentionDays; do
    [[ ${parameters[$number]} =~ ^[0-9]{1,9}$ ]] || fail "$number=${parameters[$number]} is no whole number"
  done
  if [ "${parameters[ObjectLockMode]}" != NONE ] && [ "${parameters[ObjectLockDays]}" -gt "${parameters[NoncurrentDays]}" ]; then
    fail "ObjectLockDays=${parameters[ObjectLockDays]} is longer than NoncurrentDays=${parameters[NoncurrentDays]}" \
      'lifecycle would try to remove versions that are still locked: make NoncurrentDays at least as long'
  fi
  if [ "$marker" = "$prefix" ] || [[ $marker == "$prefix"/* ]]; then
    fail "SuccessMarkerKey=$marker is in the folder of the archives, Prefix=$prefix" 'the indexing job may write nothing there: give one of them another place'
  fi
  if [[ $prefix == "$marker"/* ]]; then
    fail "Prefix=$prefix is below SuccessMarkerKey=$marker" 'give one of them another place'
  fi
  case ${parameters[BackupSchedule]} in hourly) every=3600 ;; every-six-hours) every=21600 ;; daily) every=86400 ;; weekly) every=604800 ;; esac
  if [ "${parameters[RpoSeconds]}" -le "$every" ]; then
    fail "RpoSeconds=${parameters[RpoSeconds]} is no longer than the time between two backups (BackupSchedule=${parameters[BackupSchedule]}: $every seconds)" \
      "there would be an alarm before each backup: say RpoSeconds=$((every + 7200)) or more, or back up more often"
  fi
  if [ "${parameters[BackupSchedule]}" = weekly ] && [ "${parameters[NoncurrentDays]}" -lt 14 ]; then
    fail "NoncurrentDays=${parameters[NoncurrentDays]} is too short for BackupSchedule=weekly" 'the version before the last would be gone before there is another: say 14 or more'
  fi
}

number_of_address() {
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  echo $(((a << 24) + (b << 16) + (c << 8) + d))
}

# What only AWS knows: the zone of the subnet, whether the address is in it and free, whether the zone has the instance types.
check_network() {
  local subnet=${parameters[SubnetId]} ip=${parameters[PrivateIp]} said vpc zone cidr size first address owner type
  said=$(aws_ ec2 describe-subnets --subnet-ids "$subnet" --query 'Subnets[0].[VpcId,AvailabilityZone,CidrBlock]' --output text) ||
    fail "the subnet $subnet cannot be looked at" 'is it in this account and region?'
  read -r vpc zone cidr <<<"$said"
  [ "$vpc" = "${parameters[VpcId]}" ] || fail "SubnetId=$subnet is a subnet of $vpc, not of VpcId=${parameters[VpcId]}"
  if [ -z "${parameters[AvailabilityZone]:-}" ]; then
    parameters[AvailabilityZone]=$zone
    say "AvailabilityZone=$zone, which $subnet is in"
  fi
  [ "${parameters[AvailabilityZone]}" = "$zone" ] || fail "AvailabilityZone=${parameters[AvailabilityZone]} is not that of SubnetId=$subnet, which is in $zone" 'remove the line: it is filled in'
  [[ $ip =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}$ ]] || fail "PrivateIp=$ip is no IPv4 address, as 10.0.2.15"
  size=$((1 << (32 - ${cidr#*/})))
  first=$(number_of_address "${cidr%/*}")
  address=$(number_of_address "$ip")
  # AWS keeps the first four addresses of a subnet and the last one.
  if [ "$address" -lt $((first + 4)) ] || [ "$address" -ge $((first + size - 1)) ]; then
    fail "PrivateIp=$ip is not an address that can be given in SubnetId=$subnet ($cidr)" 'the first four and the last of a subnet are kept by AWS'
  fi
  owner=$(aws_ ec2 describe-network-interfaces --filters "Name=subnet-id,Values=$subnet" "Name=addresses.private-ip-address,Values=$ip" \
    --query "NetworkInterfaces[].[NetworkInterfaceId,TagSet[?Key=='aws:cloudformation:stack-name'].Value|[0]]" --output text)
  if [ -n "$owner" ] && [ "$owner" != None ]; then
    read -r said owner <<<"$owner"
    [[ $owner == "$STACK"-* ]] || fail "PrivateIp=$ip is taken by $said" "choose an address of $cidr that is free"
  fi
  for type in "${parameters[InstanceType]}" "${parameters[StagingInstanceType]}"; do
    said=$(aws_ ec2 describe-instance-type-offerings --location-type availability-zone \
      --filters "Name=location,Values=$zone" "Name=instance-type,Values=$type" --query 'InstanceTypeOfferings[].InstanceType' --output text)
    [ "$said" = "$type" ] || fail "the zone $zone has no $type" 'choose another type, or a subnet in another zone: aws ec2 describe-instance-type-offerings --location-type availability-zone lists them'
  done
}
