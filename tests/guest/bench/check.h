/* What the checkers share: a block whose whole content follows from its number and its sequence number. */
#pragma once
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Little-endian, so that a guest and a host of another byte order agree. */
struct block_header {
  uint64_t magic;
  uint64_t number;   /* which page, block or direction */
  uint64_t sequence; /* how many times it was written, or which block of a stream */
  uint64_t checksum; /* of the words after the header and of the three fields above */
};

#define BLOCK_MAGIC 0x51534152424c4b31ull
#define HEADER_WORDS (sizeof(struct block_header) / 8)

static inline double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static inline uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

static inline uint64_t block_checksum(const uint64_t *words, size_t count, uint64_t number, uint64_t sequence) {
  uint64_t sum = mix(number * 3 + 1) ^ mix(sequence * 5 + 2);
  for (size_t i = HEADER_WORDS; i < count; i++)
    sum = (sum << 7 | sum >> 57) + le64toh(words[i]) * 0x9e3779b97f4a7c15ull;
  return sum;
}

/* Fills `count` words. */
static inline void block_write(uint64_t *words, size_t count, uint64_t number, uint64_t sequence) {
  struct block_header *header = (struct block_header *)words;
  uint64_t state = mix(number) ^ mix(sequence << 20 | 7);
  for (size_t i = HEADER_WORDS; i < count; i++) {
    state += 0x9e3779b97f4a7c15ull;
    words[i] = htole64(mix(state));
  }
  header->magic = htole64(BLOCK_MAGIC);
  header->number = htole64(number);
  header->sequence = htole64(sequence);
  header->checksum = htole64(block_checksum(words, count, number, sequence));
}

/* True if the block is what block_write() made; otherwise says on standard output how it differs. */
static inline int block_check(const char *program, const char *what, const uint64_t *words, size_t count,
                              uint64_t number, uint64_t sequence) {
  const struct block_header *header = (const struct block_header *)words;
  const char *wrong = NULL;
  if (le64toh(header->magic) != BLOCK_MAGIC) wrong = "magic";
  else if (le64toh(header->number) != number) wrong = "number";
  else if (le64toh(header->sequence) != sequence) wrong = "sequence";
  else if (le64toh(header->checksum) != block_checksum(words, count, number, sequence)) wrong = "checksum";
  if (!wrong) return 1;
  printf("%s FAIL %s %llu: wrong %s; expected sequence %llu, found number %llu sequence %llu\n", program, what,
         (unsigned long long)number, wrong, (unsigned long long)sequence, (unsigned long long)le64toh(header->number),
         (unsigned long long)le64toh(header->sequence));
  fflush(stdout);
  return 0;
}
