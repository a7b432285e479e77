/* Writes pages of memory and blocks of a file and verifies them before it writes them again: nothing may be lost or
 * repeated by a migration, a suspend or a crash of another process.
 *
 *   verify [MEMORY_MIB [FILE FILE_MIB [SECONDS]]]   0 seconds: until it is killed; FILE `-`: memory only
 *   verify check FILE [FILE_MIB]                    once: are all blocks whole? (a file left by an earlier run)
 *
 * Prints `verify ok N` (N: pages and blocks verified so far) twice a second at most, `verify FAIL ...` and exit status
 * 1 on a mismatch.
 */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)

static void die(const char *what) {
  printf("verify FAIL %s: %s\n", what, strerror(errno));
  exit(1);
}

static void transfer(int fd, int writing, uint64_t *block, uint64_t index) {
  char *at = (char *)block;
  off_t offset = (off_t)index * PAGE;
  for (size_t left = PAGE; left > 0;) {
    ssize_t done = writing ? pwrite(fd, at, left, offset) : pread(fd, at, left, offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) die(writing ? "write" : "read");
    at += done;
    offset += done;
    left -= done;
  }
}

/* Writes the file out and forgets what the page cache knows, so that the next reads come from the device. */
static void flush_file(int fd) {
  if (fdatasync(fd)) die("fdatasync");
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int check_file(const char *path, uint64_t blocks) {
  static uint64_t block[WORDS];
  int fd = open(path, O_RDONLY);
  if (fd < 0) die(path);
  uint64_t count = blocks ? blocks : (uint64_t)lseek(fd, 0, SEEK_END) / PAGE;
  for (uint64_t i = 0; i < count; i++) {
    transfer(fd, 0, block, i);
    uint64_t sequence = le64toh(((struct block_header *)block)->sequence);
    if (!block_check("verify", "block", block, WORDS, i, sequence)) return 1;
  }
  printf("verify ok %llu\nverify DONE\n", (unsigned long long)count);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 2 && !strcmp(argv[1], "check")) return check_file(argv[2], argc > 3 ? strtoull(argv[3], NULL, 0) * 256 : 0);
  uint64_t pages = (argc > 1 ? strtoull(argv[1], NULL, 0) : 16) * 256;
  const char *path = argc > 2 && strcmp(argv[2], "-") ? argv[2] : NULL;
  uint64_t blocks = path ? (argc > 3 ? strtoull(argv[3], NULL, 0) : 8) * 256 : 0;
  double seconds = argc > 4 ? atof(argv[4]) : 0, start = now_s(), told = start;
  static uint64_t block[WORDS];

  uint64_t *memory = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("memory");
  int fd = -1;
  if (path && (fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600)) < 0) die(path);
  for (uint64_t i = 0; i < pages; i++) block_write(memory + i * WORDS, WORDS, i, 1);
  for (uint64_t i = 0; i < blocks; i++) {
    block_write(block, WORDS, i, 1);
    transfer(fd, 1, block, i);
  }
  printf("verify start pages=%llu blocks=%llu\n", (unsigned long long)pages, (unsigned long long)blocks);
  fflush(stdout);

  uint64_t verified = 0;
  for (uint64_t sequence = 1;; sequence++) {
    if (fd >= 0) flush_file(fd);
    for (uint64_t i = 0; i < pages; i++) {
      uint64_t *page = memory + i * WORDS;
      if (!block_check("verify", "page", page, WORDS, i, sequence)) return 1;
      block_write(page, WORDS, i, sequence + 1);
      verified++;
    }
    for (uint64_t i = 0; i < blocks; i++) {
      transfer(fd, 0, block, i);
      if (!block_check("verify", "block", block, WORDS, i, sequence)) return 1;
      block_write(block, WORDS, i, sequence + 1);
      transfer(fd, 1, block, i);
      verified++;
    }
    if (now_s() - told >= 0.5) {
      printf("verify ok %llu\n", (unsigned long long)verified);
      fflush(stdout);
      told = now_s();
    }
    if (seconds > 0 && now_s() - start >= seconds) break;
  }
  if (fd >= 0) flush_file(fd);
  printf("verify ok %llu\nverify DONE\n", (unsigned long long)verified);
  return 0;
}
