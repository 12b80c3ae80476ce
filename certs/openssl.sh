#!/bin/sh
# The certificates of `jobworker certs`, made by openssl alone.
set -eu

usage() {
    cat <<'EOF'
usage: openssl.sh [--key rsa4096|p256] DIR HOST...

Makes, with nothing but openssl (3.0 or newer), the same files in DIR as `jobworker certs`:

  ca.pem      ca-key.pem       a CA, 365 days
  server.pem  server-key.pem   the worker's certificate for every HOST (DNS name or IP address), 365 days
  admin.pem   admin-key.pem    a client with the role admin, 45 days
  user.pem    user-key.pem     a client with the role user, 45 days
  crl.pem                      an empty revocation list
  openssl.cnf index.txt crlnumber   what `openssl ca` needs to revoke (see certs/README.md)

--key      rsa4096 (default) or p256
ROLE_OID   (environment) the extension that carries the role, default 1.3.6.1.4.1.32473.1.1

Nothing is overwritten. Keys have mode 0600.
EOF
}

fail() {
    echo "openssl.sh: $*" >&2
    exit 2
}

key=rsa4096
case "${1-}" in
-h | --help) usage; exit 0 ;;
--key)
    [ $# -ge 2 ] || fail "--key needs a value: rsa4096 or p256"
    key=$2
    shift 2
    ;;
esac
case "$key" in rsa4096 | p256) ;; *) fail "--key '$key': rsa4096 or p256" ;; esac
if [ $# -lt 2 ]; then
    usage >&2
    exit 2
fi
dir=$1
shift
role_oid=${ROLE_OID:-1.3.6.1.4.1.32473.1.1}
case "$role_oid" in *[!0-9.]* | .* | *. | *..*) fail "ROLE_OID '$role_oid': a dotted object identifier" ;; esac

# Hosts become "DNS:localhost,IP:127.0.0.1"; the character check keeps anything else out of the configuration.
names=
for host in "$@"; do
    case "$host" in
    '' | -* | *[!A-Za-z0-9.:_*-]*) fail "host '$host': a DNS name or an IP address" ;;
    *:*) name=IP:$host ;;
    *[!0-9.]*) name=DNS:$host ;;
    *) name=IP:$host ;;
    esac
    names=${names:+$names,}$name
done

# No file of this script is readable by others, not even for a moment; certificates are opened up at the end.
umask 077
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
for file in ca ca-key server server-key admin admin-key user user-key crl; do
    if [ -e "$dir/$file.pem" ] || [ -L "$dir/$file.pem" ]; then
        fail "$dir/$file.pem exists already: use another folder, or move it away"
    fi
done
for file in openssl.cnf index.txt crlnumber; do
    [ ! -e "$dir/$file" ] || fail "$dir/$file exists already: use another folder, or move it away"
done

# Everything is made in a folder beside its place and moved at the end, so a failure leaves nothing behind.
work=$(mktemp -d "$dir/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"

# One configuration for all: a section of extensions per kind of certificate, and what `openssl ca` needs to revoke.
cat >openssl.cnf <<EOF
[req]
distinguished_name = subject
prompt = no
[subject]
CN = jobworker CA

[ca_extensions]
# May sign servers, clients and revocation lists, but no further CA.
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash

[server_extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always

[admin_extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
# The role: a private extension, not critical, its value a UTF8String.
$role_oid = ASN1:UTF8String:admin

[user_extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
$role_oid = ASN1:UTF8String:user

[ca]
default_ca = jobworker
[jobworker]
certificate = ca.pem
private_key = ca-key.pem
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 365
crl_extensions = crl_extensions
[crl_extensions]
authorityKeyIdentifier = keyid:always
EOF

# quietly COMMAND...: openssl's progress marks are shown only if it fails.
quietly() {
    "$@" 2>openssl.log || {
        cat openssl.log >&2
        exit 1
    }
}

# make_key FILE: a private key, PKCS #8 PEM.
make_key() {
    case "$key" in
    rsa4096) quietly openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out "$1" ;;
    p256) quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" ;;
    esac
}

# A positive random serial number of 16 bytes.
serial() {
    echo "0x4$(openssl rand -hex 16 | cut -c 2-)"
}

# 1. The CA: a key, and a certificate signed with that same key.
make_key ca-key.pem
openssl req -new -x509 -config openssl.cnf -extensions ca_extensions -key ca-key.pem -sha256 -days 365 \
    -set_serial "$(serial)" -out ca.pem

# issue NAME SUBJECT DAYS: a key, a signing request, and the certificate the CA makes of it. The extensions come from
# the CA's side; nothing in the request is believed.
issue() {
    make_key "$1-key.pem"
    openssl req -new -config openssl.cnf -subj "/CN=$2" -key "$1-key.pem" -sha256 -out "$1.csr"
    quietly openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -set_serial "$(serial)" -sha256 -days "$3" \
        -extfile openssl.cnf -extensions "$1_extensions" -out "$1.pem"
}

# 2. The worker's certificate, and two clients.
issue server 'jobworker server' 365
issue admin admin 45
issue user user 45

# 3. An empty revocation list, signed by the CA.
: >index.txt
echo 01 >crlnumber
quietly openssl ca -config openssl.cnf -gencrl -out crl.pem

# 4. Proof before anything is handed out: the chain, each certificate's purpose, and the list.
openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check -purpose sslserver server.pem >/dev/null
openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check -purpose sslclient admin.pem user.pem >/dev/null

# 5. Into place. Certificates and the list are public, keys are not.
chmod 644 ca.pem server.pem admin.pem user.pem crl.pem
mv ./*.pem openssl.cnf index.txt crlnumber "$dir"
ls -l "$dir"
