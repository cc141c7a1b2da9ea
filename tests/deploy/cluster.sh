#!/bin/bash
# Runs daemon and workloads as pods of a real Kubernetes cluster of one node (check_cluster.py): API server,
# controllers, scheduler and kubelet are built from Debian's source package (ten minutes, once), etcd and
# containerd are Debian's. Needs root, Debian 12, its packages and PyPI; leaves nothing running.
#   tests/deploy/cluster.sh [PYTEST ARGUMENTS]
#   IMAGE_BUILT=1 ...   takes the images of the last time
#   KEEP=1 tests/deploy/cluster.sh ...   the cluster stays up: KUBECONFIG=$WORK/kubeconfig $WORK/bin/kubectl
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
export WORK=${WORK:-/var/tmp/snapsync-cluster}
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python3}")")
source_version=1.20.5+really1.20.2-1.1+deb12u1
parts="kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl"
node_address=10.88.8.1

say() { printf '%s\n' "cluster: $*" >&2; }

install_tools() {
    local missing=()
    command -v etcd >/dev/null || missing+=(etcd-server)
    command -v containerd >/dev/null || missing+=(containerd)
    command -v runc >/dev/null || missing+=(runc)
    [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
    [ -x /usr/bin/openssl ] || missing+=(openssl)
    [ -d bin ] || missing+=(golang-1.19-go make rsync jq)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

build_kubernetes() {
    [ -d bin ] && return
    say "building Kubernetes, which takes ten minutes"
    rm -rf build
    mkdir -p build/lists/partial build/gopath/src/k8s.io build/home
    cat >build/sources.list <<LIST
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
LIST
    cat >build/apt.conf <<CONF
Dir::Etc::sourcelist "$WORK/build/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::Lists "$WORK/build/lists";
APT::Sandbox::User "root";
CONF
    (
        cd build
        export APT_CONFIG=$WORK/build/apt.conf
        apt-get -qq update
        apt-get -qq source --download-only "kubernetes=$source_version"
        tar xf kubernetes_*.orig.tar.gz
        mv kubernetes-1.* gopath/src/k8s.io/kubernetes
        cd gopath/src/k8s.io/kubernetes
        export PATH=/usr/lib/go-1.19/bin:$PATH HOME=$WORK/build/home GOPATH=$WORK/build/gopath
        export GOCACHE=$WORK/build/cache CGO_ENABLED=0 GOPROXY=off GO111MODULE=off GOTOOLCHAIN=local
        export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_COMMIT=debian
        export KUBE_GIT_TREE_STATE=archive
        # shellcheck disable=SC2086
        nice -n 10 make WHAT="$(printf 'cmd/%s ' $parts)"
    ) >build.log 2>&1
    mkdir bin.new
    for part in $parts; do
        cp "build/gopath/src/k8s.io/kubernetes/_output/local/bin/linux/amd64/$part" bin.new/
    done
    mv bin.new bin
    rm -rf build
}

build_images() {
    [ -z "${IMAGE_BUILT:-}" ] || [ ! -e images.tar ] || return 0
    IMAGE_ONLY=1 PYTHON=$python "$repo/tests/deploy/image.sh"
    export CONTAINERS_CONF=$repo/tests/deploy/containers.conf
    printf 'FROM localhost/snapsync:test\nUSER 65535\nCMD ["sleep", "infinity"]\n' |
        buildah bud --quiet --pull-never -t localhost/pause:test - >/dev/null
    rm -f images.tar
    podman save --quiet --multi-image-archive -o images.tar localhost/snapsync:test localhost/pause:test
}

start() {
    local name=$1
    shift
    setsid "$@" >"log/$name.log" 2>&1 </dev/null &
    echo $! >"pids/$name"
}

wait_for() {
    local what=$1 tries=$2
    shift 2
    for _ in $(seq "$tries"); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    say "$what does not come up; see $WORK/log"
    exit 1
}

configure() {
    mkdir -p cni log pids
    [ -e sa.key ] || openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    local token
    token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    (umask 077 && echo "$token,admin,1,\"system:masters\"" >tokens.csv)
    (umask 077 && cat >kubeconfig) <<CONF
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:16443', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
CONF
    cat >cni/10-bridge.conflist <<CONF
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [{"type": "bridge", "bridge": "snapsync0",
 "isGateway": true, "ipMasq": false, "ipam": {"type": "host-local", "subnet": "10.88.9.0/24"}}]}
CONF
    cat >containerd.toml <<CONF
version = 2
root = "$WORK/containerd/root"
state = "$WORK/containerd/state"
[grpc]
  address = "$WORK/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:test"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$WORK/cni"
CONF
    cat >kubelet.yaml <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupsPerQOS: false
enforceNodeAllocatable: []
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
address: $node_address
evictionHard: {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"}
imageGCHighThresholdPercent: 99
imageGCLowThresholdPercent: 98
CONF
}

come_up() {
    say "starting"
    rm -rf etcd kubelet certificates containerd node
    # A node address that is this machine's alone, whatever its network.
    ip link add snapsync-node type veth peer name snapsync-peer
    ip address add $node_address/32 dev snapsync-node
    ip link set snapsync-node up
    start etcd etcd --data-dir etcd --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
        --listen-peer-urls http://127.0.0.1:23800
    start apiserver bin/kube-apiserver --etcd-servers=http://127.0.0.1:23790 \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=16443 \
        --cert-dir=certificates --token-auth-file=tokens.csv --authorization-mode=Node,RBAC \
        --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
        --kubelet-preferred-address-types=InternalIP
    start containerd containerd -c containerd.toml
    wait_for "the API server" 120 bin/kubectl get --raw /readyz
    start controllers bin/kube-controller-manager --kubeconfig=kubeconfig --leader-elect=false \
        --service-account-private-key-file=sa.key --use-service-account-credentials \
        --bind-address=127.0.0.1 --port=0
    start scheduler bin/kube-scheduler --kubeconfig=kubeconfig --leader-elect=false \
        --bind-address=127.0.0.1 --port=0
    wait_for containerd 60 ctr -a "$WORK/containerd.sock" version
    ctr -a "$WORK/containerd.sock" -n k8s.io images import images.tar >/dev/null
    start kubelet bin/kubelet --config kubelet.yaml --kubeconfig kubeconfig --hostname-override=node1 \
        --container-runtime=remote --container-runtime-endpoint="unix://$WORK/containerd.sock" \
        --root-dir="$WORK/kubelet" --cert-dir="$WORK/certificates" --node-ip=$node_address --v=1
    wait_for "the node" 120 sh -c "bin/kubectl get node node1 | grep -q ' Ready'"
    wait_for "the service account" 60 bin/kubectl get serviceaccount default
    bin/kubectl label node node1 kubernetes.io/os=linux --overwrite >/dev/null
}

# Only what this script started, by the numbers it wrote down.
stop() {
    local name=$1 pid
    [ -e "pids/$name" ] || return 0
    pid=$(cat "pids/$name")
    rm -f "pids/$name"
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

go_down() {
    set +e
    say "stopping"
    stop kubelet
    local client=(ctr -a "$WORK/containerd.sock" -n k8s.io) task
    for _ in 1 2 3; do
        for task in $("${client[@]}" tasks ls -q 2>/dev/null); do
            "${client[@]}" tasks kill -s 9 "$task" 2>/dev/null
        done
        sleep 0.5
    done
    for task in $("${client[@]}" containers ls -q 2>/dev/null); do
        "${client[@]}" tasks rm -f "$task" >/dev/null 2>&1
    done
    for name in scheduler controllers apiserver etcd containerd; do stop "$name"; done
    ip link del snapsync-node 2>/dev/null
    ip link del snapsync0 2>/dev/null
    awk -v below="$WORK/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l
    set -e
}

[ "$(id -u)" = 0 ] || { say "this needs root"; exit 1; }
[ "$(uname -m)" = x86_64 ] || { say "this needs x86_64"; exit 1; }
mkdir -p "$WORK"
cd "$WORK"
install_tools
build_kubernetes
build_images
configure
export KUBECONFIG=$WORK/kubeconfig
go_down 2>/dev/null
[ -n "${KEEP:-}" ] || trap 'cd "$WORK" && go_down' EXIT
come_up
cd "$repo"
"$python" -m pytest -p no:cacheprovider -q "${@:-tests/deploy/check_cluster.py}"
