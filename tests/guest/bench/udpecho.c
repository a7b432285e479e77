// udpecho PORT: sends every datagram back to where it came from.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: udpecho PORT\n");
    return 2;
  }
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
  if (s < 0 || bind(s, (struct sockaddr *)&own, sizeof own) != 0) {
    perror("udpecho");
    return 1;
  }
  for (;;) {
    char bytes[65536];
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    ssize_t got = recvfrom(s, bytes, sizeof bytes, 0, (struct sockaddr *)&peer, &length);
    if (got < 0 || sendto(s, bytes, (size_t)got, 0, (struct sockaddr *)&peer, length) != got) {
      perror("udpecho");
    }
  }
}
