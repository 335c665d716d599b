/* SPDX-License-Identifier: Apache-2.0
 *
 * A peer that says one thing to a daemon and prints what comes back: for process tests of what no program of ours
 * would say.
 *
 *   peer ENDPOINT register ROLE NAME MIN MAX    a node that speaks protocol MIN to MAX (ROLE: 2 server, 3 worker)
 *   peer ENDPOINT hello JOB MIN MAX             a task that says hello to a shard
 *   peer ENDPOINT raw HEX                       a message whose only part are these bytes
 *   peer - coordinator FILE                     a coordinator of protocol 3 on a port that it writes to FILE: it
 *                                               answers everything by a message of version 3, then by Rejected
 * One line per answer: "rejected protocol 1 to 1: <text>". Exit code 1 when none comes within 2 s.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"
#include "net/socket.h"
#include "wire/control.h"
#include "wire/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_NS (2 * BL_NS_PER_S)
#define RAW_BYTES_MAX 4096

typedef struct peer {
  bl_net *net;
  bl_loop *loop;
  bl_socket *socket;
  bool answered;
} peer;

static void expect(bool ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "peer: %s\n", what);
  exit(2);
}

static void print_control(const bl_msg *msg) {
  bl_msg_type type;
  ProtobufCMessage *m;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    printf("unreadable: %s\n", err.text);
    return;
  }
  if (type == BL_MSG_REJECTED) {
    const Ballast__Control__Rejected *r = (const Ballast__Control__Rejected *)m;
    printf("rejected protocol %u to %u: %s\n", r->protocol_min, r->protocol_max, r->text);
  } else if (type == BL_MSG_REGISTERED) {
    printf("registered protocol %u\n", ((const Ballast__Control__Registered *)m)->protocol);
  } else if (type == BL_MSG_ANSWER) {
    printf("answer %u: %s\n", ((const Ballast__Control__Answer *)m)->status, ((const Ballast__Control__Answer *)m)->text);
  } else {
    printf("%s\n", bl_msg_type_name(type));
  }
  bl_control_free(m);
}

static void on_answer(const bl_peer *from, bl_msg *msg, void *arg) {
  static bl_data_msg d;
  peer *p = arg;
  p->answered = true;
  bl_error err = BL_ERROR_INIT;
  if (bl_data_unpack(msg, &d, &err) != BL_OK)
    print_control(msg);
  else if (d.type == BL_MSG_REFUSE)
    printf("refuse protocol %u to %u: %s\n", d.refuse.protocol_min, d.refuse.protocol_max, d.refuse.text);
  else
    printf("%s\n", bl_msg_type_name(d.type));
}

static void send_control(peer *p, const bl_peer *to, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  expect(bl_control_pack(type, m, &msg) == BL_OK && bl_transport_send(bl_socket_transport(p->socket), to, &msg) == BL_OK,
         "cannot send");
}

static void send_raw(peer *p, const bl_peer *to, const char *hex) {
  static uint8_t bytes[RAW_BYTES_MAX];
  size_t n = 0;
  unsigned byte;
  for (; hex[0] != '\0' && hex[1] != '\0' && n < sizeof bytes; hex += 2) {
    expect(sscanf(hex, "%2x", &byte) == 1, "this is not hexadecimal");
    bytes[n++] = (uint8_t)byte;
  }
  bl_msg msg = BL_MSG_INIT;
  msg.head = bl_frame_copy(bytes, n);
  expect(msg.head != NULL && bl_transport_send(bl_socket_transport(p->socket), to, &msg) == BL_OK, "cannot send");
}

static void say_register(peer *p, char **args) {
  Ballast__Control__Register m = BALLAST__CONTROL__REGISTER__INIT;
  char *endpoint = (char *)"tcp://127.0.0.1:9";
  m.role = (Ballast__Control__Role)atoi(args[0]);
  m.name = args[1];
  m.protocol_min = (uint32_t)atoi(args[2]);
  m.protocol_max = (uint32_t)atoi(args[3]);
  m.incarnation = bl_clock_wall_ns();
  m.slots = 1;
  m.shard_endpoints = &endpoint;
  m.n_shard_endpoints = m.role == BALLAST__CONTROL__ROLE__ROLE_SERVER;
  send_control(p, NULL, BL_MSG_REGISTER, &m.base);
}

static void say_hello(peer *p, char **args) {
  static bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = (uint32_t)atoi(args[1]),
                       .protocol_max = (uint32_t)atoi(args[2]),
                       .job = (uint64_t)atoi(args[0]),
                       .incarnation = 1,
                       .view = 1};
  bl_msg msg = BL_MSG_INIT;
  expect(bl_data_pack(&d, 0, &msg) == BL_OK && bl_transport_send(bl_socket_transport(p->socket), NULL, &msg) == BL_OK,
         "cannot send");
}

static void say_raw(peer *p, char **args) { send_raw(p, NULL, args[0]); }

/* A message of version 3 first (type 37, HeartbeatAck): it must be counted, not believed. */
static void on_request(const bl_peer *from, bl_msg *msg, void *arg) {
  Ballast__Control__Rejected m = BALLAST__CONTROL__REJECTED__INIT;
  m.status = (uint32_t)-BL_EPROTO;
  m.text = (char *)"you speak protocol 1 to 2, this coordinator 3 to 3: upgrade the older of the two";
  m.protocol_min = m.protocol_max = 3;
  send_raw(arg, from, "424c030025000000");
  send_control(arg, from, BL_MSG_REJECTED, &m.base);
}

static void be_coordinator(peer *p, const char *file) {
  bl_error err = BL_ERROR_INIT;
  uint16_t port = 0;
  bl_socket_config config = {.kind = BL_SOCKET_ROUTER, .on_msg = on_request, .arg = p};
  expect(bl_socket_open(p->net, p->loop, &config, &p->socket, &err) == BL_OK &&
             bl_socket_bind(p->socket, "127.0.0.1", 0, &port, &err) == BL_OK,
         err.text);
  FILE *f = fopen(file, "w");
  expect(f != NULL, "cannot write the port");
  fprintf(f, "%u\n", port);
  fclose(f);
  bl_loop_run(p->loop); /* until a signal */
}

int main(int argc, char **argv) {
  static const struct {
    const char *what;
    int n_args;
    void (*say)(peer *p, char **args);
  } sayings[] = {{"register", 4, say_register}, {"hello", 3, say_hello}, {"raw", 1, say_raw}};
  peer p = {.loop = bl_loop_new()};
  bl_error err = BL_ERROR_INIT;
  bl_net_config net = {.io_threads = 1};
  expect(p.loop != NULL && bl_net_new(&net, &p.net, &err) == BL_OK, "no network");
  if (argc == 4 && strcmp(argv[2], "coordinator") == 0)
    be_coordinator(&p, argv[3]);
  size_t i = 0;
  while (i < BL_COUNT_OF(sayings) && (argc < 3 || strcmp(sayings[i].what, argv[2]) != 0 || argc != 3 + sayings[i].n_args))
    i++;
  expect(i < BL_COUNT_OF(sayings), "usage: see the head of peer.c");
  bl_socket_config config = {.kind = BL_SOCKET_DEALER, .on_msg = on_answer, .arg = &p};
  expect(bl_socket_open(p.net, p.loop, &config, &p.socket, &err) == BL_OK &&
             bl_socket_connect(p.socket, argv[1], &err) == BL_OK,
         err.text);
  sayings[i].say(&p, argv + 3);
  uint64_t end = bl_clock_now_ns() + DEADLINE_NS;
  while (!p.answered && bl_clock_now_ns() < end)
    bl_loop_run_once(p.loop, 50);
  bl_socket_close(p.socket);
  bl_loop_free(p.loop);
  bl_net_free(p.net);
  return p.answered ? 0 : 1;
}
