#!/bin/bash
# What a machine goes through with the packages: install, start, upgrade, crash, remove, purge.
#
# `cargo xtask package-test` runs it as root in mount, network and process namespaces of its own. It lays an overlay over
# this machine's root, so that nothing it does stays. systemd does not run there: a recorder stands for `systemctl`, and
# programs are started with the command line, settings, user and capabilities of their units. What only systemd does
# (sandboxing beyond capabilities, Type=notify, the watchdog) is not tried.
#
# lifecycle.sh DIRECTORY-OF-PACKAGES DIRECTORY-OF-NEWER-PACKAGES
set -euo pipefail

NAMES="adit adit-gateway adit-relay adit-portal"
UNITS="aditd adit-gateway adit-relay adit-portal"
CALLS=/run/systemctl-calls
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The user that stands for the one that systemd makes up for DynamicUser=.
DYNAMIC_USER=64042
passed=0

pass() { passed=$((passed + 1)); echo "ok    $1"; }
fail() { echo "FAIL  $1"; exit 1; }
# check WHAT COMMAND...: the command must succeed.
check() { local what=$1; shift; if "$@" >/tmp/said 2>&1; then pass "$what"; else cat /tmp/said; fail "$what"; fi; }
# refute WHAT COMMAND...: the command must fail.
refute() { local what=$1; shift; if "$@" >/tmp/said 2>&1; then cat /tmp/said; fail "$what"; else pass "$what"; fi; }
# eventually WHAT COMMAND...: within ten seconds.
eventually() {
    local what=$1 tries=100; shift
    until "$@" >/tmp/said 2>&1; do
        tries=$((tries - 1))
        if [ $tries = 0 ]; then cat /tmp/said; tail -n 5 /tmp/out-* /var/log/adit*/*.log 2>/dev/null || true; fail "$what"; fi
        sleep 0.1
    done
    pass "$what"
}

# --- a machine ------------------------------------------------------------------------------------------------------

# machine DIRECTORY: an overlay over this machine, with nothing of it but the packages that are installed.
machine() {
    local mountpoint
    mkdir -p "$1"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    mount -t proc proc "$1/root/proc"
    mount --rbind /dev "$1/root/dev"
    mount --rbind /sys "$1/root/sys"
    for mountpoint in run tmp; do mount -t tmpfs none "$1/root/$mountpoint"; done
    mkdir -p "$1/root/run/systemd/system" "$1/root/tmp/packages" "$1/root/tmp/newer"
    rm -rf "$1/root/etc/adit" "$1"/root/var/lib/adit* "$1"/root/var/log/adit*
    # In the place of the real one: rpm's scripts have a PATH of their own.
    rm "$1/root/usr/bin/systemctl"
    printf '#!/bin/sh\necho "$@" >>%s\n' "$CALLS" >"$1/root/usr/bin/systemctl"
    chmod 755 "$1/root/usr/bin/systemctl"
    mount --bind "$packages" "$1/root/tmp/packages"
    mount --bind "$newer" "$1/root/tmp/newer"
    cp "$0" "$1/root/run/lifecycle.sh"
}

# --- units ----------------------------------------------------------------------------------------------------------

unit_file() { echo "/usr/lib/systemd/system/$1.service"; }
value() { sed -n "s/^$2=//p" "$(unit_file "$1")" | tail -n 1; }

# capabilities WORDS: as setpriv writes them.
capabilities() {
    local list=-all word
    for word in $1; do word=${word#CAP_}; list="$list,+${word,,}"; done
    echo "$list"
}

# as_unit UNIT COMMAND...: becomes the command, with the user, the capabilities and the settings of the unit.
as_unit() {
    local unit=$1 user=0 kind name settings; shift
    if [ "$(value "$unit" DynamicUser)" = yes ]; then user=$DYNAMIC_USER; fi
    for kind in State:/var/lib Logs:/var/log Runtime:/run; do
        name=$(value "$unit" "${kind%%:*}Directory")
        if [ -n "$name" ]; then
            mkdir -p "${kind#*:}/$name"
            if [ $user != 0 ]; then chown -R $user:$user "${kind#*:}/$name"; fi
        fi
    done
    settings=$(value "$unit" EnvironmentFile)
    # One variable a line without quotes: a subset of what systemd reads.
    mapfile -t settings < <(grep -v -e '^#' -e '^$' "${settings#-}")
    exec env -i PATH=$PATH "${settings[@]}" setpriv --reuid $user --regid $user --clear-groups --no-new-privs \
        --bounding-set "$(capabilities "$(value "$unit" CapabilityBoundingSet)")" \
        --inh-caps "$(capabilities "$(value "$unit" AmbientCapabilities)")" \
        --ambient-caps "$(capabilities "$(value "$unit" AmbientCapabilities)")" "$@"
}

declare -A running
start() {
    # The command line has no quotes and no variables.
    as_unit "$1" $(value "$1" ExecStart) >"/tmp/out-$1" 2>&1 &
    running[$1]=$!
}
# stop UNIT SIGNAL
stop() {
    kill "-$2" "${running[$1]}" 2>/dev/null || true
    wait "${running[$1]}" 2>/dev/null || true
}
after_stop() { (as_unit "$1" $(value "$1" ExecStopPost)); }
healthy() { curl -fsS --max-time 2 "http://127.0.0.1:$1/$2"; }

# network_state: what the client changes on a machine.
network_state() {
    ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
    ip -o link | sed 's/^[0-9]*: //; s/ mtu.*//'; nft list ruleset; cat /etc/resolv.conf
}

# --- the stories ----------------------------------------------------------------------------------------------------

installed_files() {
    local unit name
    check "systemd finds no fault in the units" systemd-analyze verify $(for unit in $UNITS aditd@; do unit_file "$unit"; done)
    if [ -s /tmp/said ]; then cat /tmp/said; fail "systemd has remarks about the units"; fi
    check "the group is there" getent group adit
    for name in client gateway relay portal; do
        check "settings of the $name are for root alone" test "$(stat -c %a:%u "/etc/adit/$name.env")" = 600:0
    done
    for name in aditd adit-gateway adit-relay; do
        check "$name has a manual page" gzip -t "/usr/share/man/man8/$name.8.gz"
    done
    for name in adit adit-status adit-portal adit-portal-serve; do
        check "$name has a manual page" gzip -t "/usr/share/man/man1/$name.1.gz"
    done
    for name in adit adit-portal; do
        check "bash completes $name" bash -n "/usr/share/bash-completion/completions/$name"
    done
    for name in $NAMES aditd; do check "$name starts" "$name" --version; done
}

write_settings() {
    cat >/etc/adit/portal.env <<'END'
ADIT_PORTAL_HEALTH=127.0.0.1:9001
END
    cat >/etc/adit/relay.env <<END
ADIT_PORTAL=wss://portal.test
ADIT_CA=/etc/adit/ca.pem
ADIT_TOKEN=$1
ADIT_PUBLIC_IPV4=192.0.2.1
ADIT_HEALTH=127.0.0.1:9002
END
    cat >/etc/adit/gateway.env <<END
ADIT_PORTAL=wss://portal.test
ADIT_CA=/etc/adit/ca.pem
ADIT_TOKEN=$2
ADIT_HEALTH=127.0.0.1:9003
END
    cat >/etc/adit/client.env <<'END'
ADIT_PORTAL=wss://portal.test
ADIT_CA=/etc/adit/ca.pem
ADIT_HEALTH=127.0.0.1:9004
ADIT_DNS_CONTROL=resolv-conf
END
}

portal() { adit-portal "$@" --json --url https://portal.test --ca /etc/adit/ca.pem --token "$admin"; }

# first_start: the four programs, as README.md has it.
first_start() {
    local relay gateway
    ip link set lo up
    ip link add up0 type veth peer name up1
    ip link set up1 up
    ip link set up0 up
    ip address add 192.0.2.1/24 dev up0
    ip route add default via 192.0.2.254
    echo "192.0.2.1 portal.test" >>/etc/hosts
    echo "nameserver 192.0.2.53" >/etc/resolv.conf
    adit-portal bootstrap --url https://portal.test --json >/tmp/bootstrap.json
    admin=$(jq -r .admin_token /tmp/bootstrap.json)
    relay=$(jq -r .relay_token /tmp/bootstrap.json)
    cp "$(jq -r .ca_file /tmp/bootstrap.json)" /etc/adit/ca.pem
    chmod 644 /etc/adit/ca.pem
    write_settings "$relay" none
    start adit-portal
    eventually "the portal is ready" healthy 9001 readyz
    check "a site" portal site create office
    check "a resource" portal resource create servers --site office --type cidr --address 10.20.0.0/16
    check "a group" portal group create staff
    check "a person" portal actor create ana
    check "a membership" portal membership add --group staff --actor ana
    check "a policy" portal policy create --group staff --resource servers
    gateway=$(portal token create gateway --site office | jq -r .token)
    portal token create client --actor ana | jq -r .token >/tmp/token
    write_settings "$relay" "$gateway"
    start adit-relay
    eventually "the relay is ready" healthy 9002 readyz
    start adit-gateway
    eventually "the gateway is ready" healthy 9003 readyz
    # The kernel adds routes when it knows that an address is unique.
    eventually "the machine's addresses are settled" sh -c '! ip -6 address show tentative | grep -q inet6'
    network_state >/tmp/network-before
    start aditd
    eventually "the daemon is ready" healthy 9004 readyz
    check "the client signs in and connects" adit up --token-file /tmp/token --wait
    eventually "the resource's network goes into the tunnel" sh -c 'ip route show table all | grep "10.20.0.0/16.*adit0"'
    refute "the resolver is ours" grep 192.0.2.53 /etc/resolv.conf
    check "somebody who is not in the group only looks" \
        setpriv --reuid 65534 --regid 65534 --clear-groups adit status
    refute "somebody who is not in the group disconnects nobody" \
        setpriv --reuid 65534 --regid 65534 --clear-groups adit down
    check "a member of the group operates" \
        setpriv --reuid 65534 --regid 65534 --groups "$(getent group adit | cut -d: -f3)" adit config list
}

is_clean() { network_state >/tmp/network-now; diff /tmp/network-before /tmp/network-now; }

upgrade() {
    sha256sum /etc/adit/* >/tmp/settings-before
    : >$CALLS
    check "newer packages come" dpkg -i /tmp/newer/*.deb
    check "settings are kept" sha256sum --quiet -c /tmp/settings-before
    for unit in $UNITS; do check "$unit is restarted if it runs" grep -x "try-restart $unit.service" $CALLS; done
    refute "nothing is disabled" grep disable $CALLS
    check "the version is the newer one" sh -c "dpkg-query -W -f '\${Version}' adit | grep 9999"
    stop aditd TERM
    check "what follows the daemon's end" after_stop aditd
    check "the network is as it was before" is_clean
    start aditd
    eventually "the daemon is ready again" healthy 9004 readyz
    check "the client is connected again without a sign-in" adit wait --for online --timeout 20
}

# profile: a second network on the same machine. systemd makes a unit of the template for each name.
profile() {
    mkdir -p /etc/adit/profiles
    sed s/9004/9005/ /etc/adit/client.env >/etc/adit/profiles/work.env
    sed "s|%i|work|g" "$(unit_file aditd@)" >"$(unit_file work)"
    portal token create client --actor ana | jq -r .token >/tmp/token-work
    start work
    eventually "the daemon of a profile is ready" healthy 9005 readyz
    check "the profile signs in and connects" adit --profile work up --token-file /tmp/token-work --wait
    check "its tunnel is another one" sh -c 'ip route show table all | grep "10.20.0.0/16.*adit1"'
    check "both daemons are listed" sh -c '[ "$(adit profiles --json | jq ".profiles | length")" = 2 ]'
    stop work TERM
    check "what follows its end" after_stop work
    check "the other one is still connected" adit wait --for online --timeout 5
    rm "$(unit_file work)"
    refute "its tunnel is gone" sh -c 'ip route show table all | grep adit1'
}

crash() {
    stop aditd KILL
    refute "a crash leaves something behind" is_clean
    check "what follows the daemon's end" after_stop aditd
    check "the network is as it was before" is_clean
    start aditd
    eventually "the daemon is ready again" healthy 9004 readyz
    check "the client is connected again after a crash" adit wait --for online --timeout 20
}

removal() {
    stop aditd KILL
    : >$CALLS
    check "the client is removed after a crash" dpkg -r adit
    check "the service is stopped for good" grep -x "disable --now aditd.service" $CALLS
    check "the network is as it was before" is_clean
    for unit in adit-gateway adit-relay adit-portal; do stop $unit TERM; done
    check "the others are removed" dpkg -r adit-gateway adit-relay adit-portal
    for name in $NAMES aditd; do refute "$name is gone" test -e "/usr/bin/$name"; done
    check "settings are kept" sha256sum --quiet -c /tmp/settings-before
    check "state is kept" test -s /var/lib/adit-portal/portal.db
    # systemd keeps the state of a dynamic user here.
    mkdir -p /var/lib/private /var/log/private
    mv /var/lib/adit-relay /var/lib/private/ && ln -s private/adit-relay /var/lib/adit-relay
    rm /etc/adit/ca.pem
    check "everything is purged" dpkg -P $NAMES
    refute "settings of profiles are left" test -e /etc/adit
    check "nothing is left" test -z "$(find /etc /var/lib /var/log /usr/bin /usr/lib/systemd /usr/share -name 'adit*' \
        -not -path '/var/lib/dpkg/*' -print)"
    gateway_links=$(ip -o link | grep -c adit || true)
    check "no interface is left" test "$gateway_links" = 0
}

debian() {
    check "packages come" dpkg -i /tmp/packages/*.deb
    refute "nothing is started or restarted unasked" grep -e enable -e start $CALLS
    installed_files
    first_start
    upgrade
    profile
    crash
    removal
}

# rpm on Debian knows no packages: dependencies are not looked at.
redhat() {
    local rpm="rpm --nodeps --force-debian"
    check "packages come" $rpm -i /tmp/packages/*.rpm
    refute "nothing is started or restarted unasked" grep -e enable -e start $CALLS
    installed_files
    echo "ADIT_PORTAL=wss://portal.test" >/etc/adit/client.env
    sha256sum /etc/adit/* >/tmp/settings-before
    : >$CALLS
    check "newer packages come" $rpm -U /tmp/newer/*.rpm
    for unit in $UNITS; do check "$unit is restarted if it runs" grep -x "try-restart $unit.service" $CALLS; done
    refute "nothing is disabled" grep disable $CALLS
    check "settings are kept" sha256sum --quiet -c /tmp/settings-before
    for name in $NAMES aditd; do check "$name still starts" "$name" --version; done
    check "packages are removed" rpm -e --nodeps $NAMES
    for unit in $UNITS; do check "$unit is stopped for good" grep -x "disable --now $unit.service" $CALLS; done
    for name in $NAMES aditd; do refute "$name is gone" test -e "/usr/bin/$name"; done
    check "settings are kept" sha256sum --quiet -c /tmp/settings-before
}

if [ "${1:-}" = --inside ]; then
    : >$CALLS
    "$2"
    echo "$passed checks passed"
    exit 0
fi

packages=$1 newer=$2
place=$(mktemp -d)
mount -t tmpfs none "$place"
for world in debian redhat; do
    echo "== $world"
    machine "$place/$world"
    chroot "$place/$world/root" bash /run/lifecycle.sh --inside $world
done
