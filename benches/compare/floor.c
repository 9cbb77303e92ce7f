/* What answering costs when nothing is decided: one read and one write for each request, and a loop around them.
 *
 *   floor PORT    answers /hit/1k, /hit/20k and /hit/64k, whatever else is asked, one request for each read
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_EVENTS = 1024, MAX_DESCRIPTORS = 65536 };

struct answer {
    const char *path;
    size_t body, length;
    char *bytes;
};

static struct answer answers[] = {{"/hit/1k", 1 << 10, 0, 0}, {"/hit/20k", 20 << 10, 0, 0}, {"/hit/64k", 64 << 10, 0, 0}};

/* What is left to be written on a connection. */
static struct {
    const char *at;
    size_t left;
} pending[MAX_DESCRIPTORS];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* As many bytes of head as a cache sends. */
static void prepare(struct answer *answer)
{
    const char *head = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 31 Jan 2026 23:59:59 GMT\r\nContent-Type: text/plain\r\n"
                       "Last-Modified: Sat, 31 Jan 2026 23:59:59 GMT\r\nCache-Control: max-age=3600\r\nAccept-Ranges: bytes\r\n"
                       "Age: 10\r\nCache-Status: floor; hit; ttl=3590; detail=l1\r\n"
                       "X-Request-Id: 0123456789abcdef0123456789abcdef\r\nContent-Length: %zu\r\n\r\n";
    answer->bytes = malloc(1024 + answer->body);
    if (!answer->bytes)
        fail("malloc");
    size_t length = (size_t)sprintf(answer->bytes, head, answer->body);
    memset(answer->bytes + length, 'x', answer->body);
    answer->length = length + answer->body;
}

static void flush(int fd)
{
    while (pending[fd].left) {
        ssize_t sent = send(fd, pending[fd].at, pending[fd].left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) {
            pending[fd].left = 0;
            close(fd);
            return;
        }
        pending[fd].at += sent;
        pending[fd].left -= (size_t)sent;
    }
}

static void serve(int fd)
{
    char request[16384];
    flush(fd);
    if (pending[fd].left)
        return;
    ssize_t count = recv(fd, request, sizeof request - 1, 0);
    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0) {
        close(fd);
        return;
    }
    request[count] = 0;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        size_t path = strlen(answers[i].path);
        if (count > 5 && strncmp(request + 4, answers[i].path, path) == 0 && request[4 + path] == ' ') {
            pending[fd].at = answers[i].bytes;
            pending[fd].left = answers[i].length;
            flush(fd);
            return;
        }
    }
    close(fd);
}

int main(int count, char **arguments)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[MAX_EVENTS];
    if (count != 2)
        return 2;
    address.sin_port = htons((unsigned short)atoi(arguments[1]));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        prepare(&answers[i]);
    int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    if (door < 0 || epoll < 0 || setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes))
        fail("socket");
    if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, 4096))
        fail("bind");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = door};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, door, &event))
        fail("epoll_ctl");
    for (;;) {
        int ready = epoll_wait(epoll, events, MAX_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != door) {
                serve(fd);
                continue;
            }
            while ((fd = accept4(door, 0, 0, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MAX_DESCRIPTORS) {
                    close(fd);
                    continue;
                }
                pending[fd].left = 0;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
                if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
                    close(fd);
            }
        }
    }
}
