/* The floor of a cold pull: what the wire, the hash and the files cost without anything else.
 *
 *     floor HOST PORT CA_FILE|- BUCKET LIST DIRECTORY CONNECTIONS
 *
 * LIST has a line for each object: key, digest, path. CONNECTIONS threads, each with one keep-alive
 * connection, ask for one object after the other, hash it with BLAKE3 as it comes, compare and
 * write it to its path below DIRECTORY, whose directories exist. Requests are not signed; nothing
 * is retried, recorded, made durable or published; any surprise ends the program with 1.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blake3.h"

enum { BUFFER_BYTES = 1 << 20, LINE_BYTES = 4096 + 256, REQUEST_BYTES = 1024 };

struct object {
    char *key, *digest, *path;
};

static struct object *objects;
static size_t object_count;
static atomic_size_t next_object;
static const char *host, *bucket;
static int port, directory;
static SSL_CTX *tls;

static void die(const char *what, const char *which) {
    fprintf(stderr, "floor: %s: %s\n", what, which);
    ERR_print_errors_fp(stderr);
    exit(1);
}

struct connection {
    int socket;
    SSL *ssl;
};

static struct connection connected(void) {
    struct connection made = {socket(AF_INET, SOCK_STREAM, 0), NULL};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("not an IPv4 address", host);
    if (connect(made.socket, (struct sockaddr *)&address, sizeof address) != 0) die("connect", host);
    setsockopt(made.socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (tls == NULL) return made;
    made.ssl = SSL_new(tls);
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(made.ssl), host);
    SSL_set_fd(made.ssl, made.socket);
    if (SSL_connect(made.ssl) != 1) die("TLS", host);
    return made;
}

static size_t received(struct connection *from, char *into, size_t room) {
    ssize_t got = from->ssl ? SSL_read(from->ssl, into, (int)room) : recv(from->socket, into, room, 0);
    if (got <= 0) die("connection ended", host);
    return (size_t)got;
}

static void ask(struct connection *to, const struct object *wanted) {
    char request[REQUEST_BYTES];
    int length = snprintf(request, sizeof request,
                          "GET /%s/%s HTTP/1.1\r\nHost: %s:%d\r\n\r\n", bucket, wanted->key, host, port);
    ssize_t sent = to->ssl ? SSL_write(to->ssl, request, length)
                           : send(to->socket, request, (size_t)length, MSG_NOSIGNAL);
    if (sent != length) die("send", wanted->key);
}

/* Read the head of an answer; give where the body begins in the buffer, and how long it is. */
static size_t head(struct connection *from, char *buffer, size_t *filled, size_t *body_bytes,
                   const struct object *wanted) {
    char *end = NULL;
    *filled = 0;
    while (end == NULL) {
        *filled += received(from, buffer + *filled, BUFFER_BYTES - *filled);
        buffer[*filled] = 0;
        end = memmem(buffer, *filled, "\r\n\r\n", 4);
    }
    char *length = strcasestr(buffer, "\r\nContent-Length:");
    if (strncmp(buffer, "HTTP/1.1 200", 12) != 0 || length == NULL || length > end)
        die("unexpected answer", wanted->key);
    *body_bytes = strtoull(length + 17, NULL, 10);
    return (size_t)(end + 4 - buffer);
}

static void write_whole(int file, const char *from, size_t bytes, const char *path) {
    while (bytes > 0) {
        ssize_t wrote = write(file, from, bytes);
        if (wrote <= 0) die("write", path);
        from += wrote;
        bytes -= (size_t)wrote;
    }
}

static void check(blake3_hasher *hasher, const struct object *wanted) {
    uint8_t raw[BLAKE3_OUT_LEN];
    char text[2 * BLAKE3_OUT_LEN + 1];
    blake3_hasher_finalize(hasher, raw, sizeof raw);
    for (int each = 0; each < BLAKE3_OUT_LEN; each++) sprintf(text + 2 * each, "%02x", raw[each]);
    if (strcmp(text, wanted->digest) != 0) die("wrong bytes", wanted->key);
}

static void fetch(struct connection *from, const struct object *wanted, char *buffer) {
    size_t filled, body_bytes;
    blake3_hasher hasher;
    ask(from, wanted);
    size_t begin = head(from, buffer, &filled, &body_bytes, wanted);
    int file = openat(directory, wanted->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) die("open", wanted->path);
    blake3_hasher_init(&hasher);
    for (size_t done = 0;;) {
        size_t left = body_bytes - done - (filled - begin);
        while (left > 0 && filled < BUFFER_BYTES) {
            size_t room = BUFFER_BYTES - filled;
            size_t got = received(from, buffer + filled, left < room ? left : room);
            filled += got;
            left -= got;
        }
        blake3_hasher_update(&hasher, buffer + begin, filled - begin);
        write_whole(file, buffer + begin, filled - begin, wanted->path);
        done += filled - begin;
        begin = filled = 0;
        if (done == body_bytes) break;
    }
    check(&hasher, wanted);
    close(file);
}

static void *work(void *nothing) {
    char *buffer = malloc(BUFFER_BYTES + 1);
    struct connection own = connected();
    size_t number;
    while ((number = atomic_fetch_add(&next_object, 1)) < object_count)
        fetch(&own, &objects[number], buffer);
    return nothing;
}

static void read_list(const char *name) {
    FILE *list = fopen(name, "r");
    char line[LINE_BYTES], *saved;
    size_t room = 0;
    if (list == NULL) die("open", name);
    while (fgets(line, sizeof line, list)) {
        if (object_count == room) {
            room = room ? 2 * room : 1024;
            objects = realloc(objects, room * sizeof *objects);
        }
        struct object *each = &objects[object_count++];
        each->key = strdup(strtok_r(line, " ", &saved));
        each->digest = strdup(strtok_r(NULL, " ", &saved));
        each->path = strdup(strtok_r(NULL, "\n", &saved));
    }
    fclose(list);
}

static void trust(const char *ca_file) {
    tls = SSL_CTX_new(TLS_client_method());
    if (SSL_CTX_load_verify_locations(tls, ca_file, NULL) != 1) die("CA", ca_file);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
}

int main(int count, char **words) {
    if (count != 8) die("usage", "floor HOST PORT CA_FILE|- BUCKET LIST DIRECTORY CONNECTIONS");
    host = words[1];
    port = atoi(words[2]);
    if (strcmp(words[3], "-") != 0) trust(words[3]);
    bucket = words[4];
    read_list(words[5]);
    directory = open(words[6], O_RDONLY | O_DIRECTORY);
    if (directory < 0) die("open", words[6]);
    int threads = atoi(words[7]);
    pthread_t running[threads];
    for (int each = 0; each < threads; each++) pthread_create(&running[each], NULL, work, NULL);
    for (int each = 0; each < threads; each++) pthread_join(running[each], NULL);
    return 0;
}
