set -eu
fail() { echo "gateway: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "only root can install it"
[ -d /run/systemd/system ] || fail "systemd does not run this machine: start adit-gateway by other means"
if ! command -v adit-gateway >/dev/null; then
    if command -v apt-get >/dev/null; then
        package=$(ls ./adit-gateway_*_"$(dpkg --print-architecture)".deb 2>/dev/null | tail -n 1)
        [ -n "$package" ] || fail "copy the package adit-gateway_….deb into $PWD and run this again"
        apt-get install -y "$package" </dev/null
    elif command -v dnf >/dev/null; then
        package=$(ls ./adit-gateway-*."$(uname -m)".rpm 2>/dev/null | tail -n 1)
        [ -n "$package" ] || fail "copy the package adit-gateway-….rpm into $PWD and run this again"
        dnf install -y "$package" </dev/null
    else
        fail "adit-gateway is not installed"
    fi
fi
umask 077
mkdir -p -m 755 /etc/adit
# Settings of somebody else's stay.
{
    [ ! -e /etc/adit/gateway.env ] || sed -E -e '/^ADIT_(PORTAL|TOKEN|CA)=/d' -e '$a\' /etc/adit/gateway.env
    cat <<'X'
@SETTINGS@
X
} >/etc/adit/gateway.env.new
mv /etc/adit/gateway.env.new /etc/adit/gateway.env
systemctl enable adit-gateway </dev/null
systemctl restart --no-block adit-gateway </dev/null
waited=0
until systemctl is-active --quiet adit-gateway </dev/null; do
    if [ "$waited" = 30 ] || systemctl is-failed --quiet adit-gateway </dev/null; then
        journalctl --unit adit-gateway --lines 10 --no-pager >&2 </dev/null || true
        fail "it is not connected to the portal; its log above says why"
    fi
    waited=$((waited + 1))
    sleep 1
done
echo "The gateway is connected."
