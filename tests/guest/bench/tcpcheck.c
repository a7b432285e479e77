/* Sends numbered, checksummed blocks over TCP in both directions at once and verifies what arrives: nothing may be
 * lost, repeated or changed, and the connection may not break, while one end migrates.
 *
 *   tcpcheck server PORT                              serves any number of clients, each in a process of its own
 *   tcpcheck client ADDRESS PORT [SECONDS [KIB_PER_S]]   0 seconds: until it is killed; 0 KiB/s: as fast as it goes
 *
 * Once a second: `tcpcheck ok blocks=N max_stall_ms=M` (N blocks received, M the longest wait for one in that second).
 * At the end `tcpcheck DONE blocks=N max_stall_ms=M` over the whole time; `tcpcheck FAIL ...` and exit status 1 on
 * trouble.
 */
#define _GNU_SOURCE
#include "check.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK 4096
#define WORDS (BLOCK / 8)
#define LAST UINT64_MAX /* number of the block that ends a direction */

struct session {
  int fd;
  uint64_t send_as, receive_as; /* block number of each direction: 1 client to server, 2 server to client */
  double seconds;               /* how long to send; < 0: until the other end says it has ended */
  double bytes_per_s;
  volatile int peer_ended;
};

static void fail(const char *what) {
  printf("tcpcheck FAIL %s: %s\n", what, errno ? strerror(errno) : "connection closed");
  fflush(stdout);
  _exit(1);
}

static void send_block(int fd, uint64_t number, uint64_t sequence) {
  uint64_t block[WORDS];
  block_write(block, WORDS, number, sequence);
  const char *at = (const char *)block;
  for (size_t left = BLOCK; left > 0;) {
    ssize_t done = send(fd, at, left, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("send");
    at += done;
    left -= done;
  }
}

static void *sender(void *argument) {
  struct session *session = argument;
  double start = now_s();
  uint64_t sequence = 0;
  for (;;) {
    double elapsed = now_s() - start;
    if (session->peer_ended || (session->seconds > 0 && elapsed >= session->seconds)) break;
    double ahead_s = session->bytes_per_s > 0 ? sequence * (double)BLOCK / session->bytes_per_s - elapsed : 0;
    if (ahead_s > 0) {
      /* After a stall the rate goes on from now rather than catching up in a burst. */
      usleep(ahead_s > 0.01 ? 10000 : (useconds_t)(ahead_s * 1e6) + 1);
      continue;
    }
    if (ahead_s < -0.5 && session->bytes_per_s > 0) start -= ahead_s;
    send_block(session->fd, session->send_as, sequence++);
  }
  send_block(session->fd, LAST, sequence);
  return NULL;
}

static void receive(struct session *session) {
  uint64_t block[WORDS], expected = 0;
  double last = now_s(), told = last, worst = 0, worst_ever = 0;
  for (;;) {
    char *at = (char *)block;
    for (size_t left = BLOCK; left > 0;) {
      errno = 0;
      ssize_t done = recv(session->fd, at, left, 0);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) fail("receive");
      at += done;
      left -= done;
    }
    double now = now_s();
    if (now - last > worst) worst = now - last;
    if (worst > worst_ever) worst_ever = worst;
    last = now;
    int end = le64toh(((struct block_header *)block)->number) == LAST;
    if (!block_check("tcpcheck", "stream", block, WORDS, end ? LAST : session->receive_as, expected)) _exit(1);
    if (end) break;
    expected++;
    if (now - told >= 1) {
      printf("tcpcheck ok blocks=%llu max_stall_ms=%.1f\n", (unsigned long long)expected, worst * 1e3);
      fflush(stdout);
      told = now;
      worst = 0;
    }
  }
  session->peer_ended = 1;
  printf("tcpcheck DONE blocks=%llu max_stall_ms=%.1f\n", (unsigned long long)expected, worst_ever * 1e3);
  fflush(stdout);
}

static int exchange(struct session session) {
  int one = 1;
  setsockopt(session.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  pthread_t thread;
  if ((errno = pthread_create(&thread, NULL, sender, &session))) fail("thread");
  receive(&session);
  pthread_join(thread, NULL);
  close(session.fd);
  return 0;
}

static int server(const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = INADDR_ANY};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0) fail("socket");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) fail("listen");
  signal(SIGCHLD, SIG_IGN);
  printf("tcpcheck listening on %s\n", port);
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) {
      if (errno == EINTR) continue;
      fail("accept");
    }
    /* The server sends as long as its client does, 1 MiB/s. */
    if (fork() == 0) {
      close(listener);
      _exit(exchange((struct session){.fd = fd, .send_as = 2, .receive_as = 1, .seconds = -1, .bytes_per_s = 1 << 20}));
    }
    close(fd);
  }
}

static int client(const char *host, const char *port, double seconds, double kib_per_s) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    printf("tcpcheck FAIL %s is not an IPv4 address\n", host);
    return 1;
  }
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  errno = 0;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  return exchange(
      (struct session){.fd = fd, .send_as = 1, .receive_as = 2, .seconds = seconds, .bytes_per_s = kib_per_s * 1024});
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "server")) return server(argv[2]);
  if (argc >= 4 && !strcmp(argv[1], "client"))
    return client(argv[2], argv[3], argc > 4 ? atof(argv[4]) : 0, argc > 5 ? atof(argv[5]) : 1024);
  fputs("usage: tcpcheck server PORT | tcpcheck client ADDRESS PORT [SECONDS [KIB_PER_S]]\n", stderr);
  return 2;
}
