/* Classifies an image file with an export and TensorFlow's C API, nothing else.

     TF_CPP_MIN_LOG_LEVEL=3 ./consumer models/digits/1140 image.png

   Prints a line for each of the best classes: its name, a tab, its score. Exit codes: 0
   success, 1 an error, on stderr, 2 usage. (The variable silences TensorFlow.) Build it
   in the root of the checkout with the headers and libraries of the tensorflow wheel:

     TF=$(python -c 'import tensorflow as tf; print(tf.sysconfig.get_lib())')
     gcc -std=c11 -O2 -Wall -Wextra -Werror -o consumer examples/serving/consumer.c \
         -I"$TF/include" -L"$TF" -Wl,-rpath,"$TF" \
         -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2

   The signature `image_bytes` names the operations to feed and to fetch. Three functions
   read it from the MetaGraphDef that comes with the session. `saved_model_cli show --dir
   DIR --all` prints its contents. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

#define SIGNATURE "image_bytes"

/* Fields of tensorflow/core/protobuf/meta_graph.proto, and of any entry of a map. */
enum {
  META_GRAPH_SIGNATURES = 5,
  SIGNATURE_INPUTS = 1,
  SIGNATURE_OUTPUTS = 2,
  TENSOR_NAME = 1,
  ENTRY_KEY = 1,
  ENTRY_VALUE = 2,
};

typedef struct {
  const unsigned char *data;
  size_t size;
} Bytes;

static bool fail(const char *what, const char *why) {
  /* TensorFlow's messages may continue with a stack of operations. */
  fprintf(stderr, "consumer: %s: %.*s\n", what, (int)strcspn(why, "\n"), why);
  return false;
}

/* ---- Protocol buffers: the part of their encoding that a signature needs ---- */

static bool read_varint(Bytes *rest, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && rest->size > 0; shift += 7) {
    const unsigned char byte = *rest->data;
    rest->data++;
    rest->size--;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

/* Removes the next field from `rest`. The values of numbers are not needed. */
static bool read_field(Bytes *rest, uint64_t *number, Bytes *content) {
  uint64_t tag, size = 0, ignored;
  if (!read_varint(rest, &tag)) return false;
  *number = tag >> 3;
  switch (tag & 7) {
    case 0:
      if (!read_varint(rest, &ignored)) return false;
      break;
    case 1:
      size = 8;
      break;
    case 2:
      if (!read_varint(rest, &size)) return false;
      break;
    case 5:
      size = 4;
      break;
    default:
      return false;
  }
  if (size > rest->size) return false;
  *content = (Bytes){rest->data, size};
  rest->data += size;
  rest->size -= size;
  return true;
}

/* Finds a field of a message or, with a `key`, the value of that map entry. */
static bool find(Bytes message, uint64_t wanted, const char *key, Bytes *found) {
  uint64_t number;
  Bytes content, name;
  while (read_field(&message, &number, &content)) {
    if (number != wanted) continue;
    if (key == NULL) {
      *found = content;
      return true;
    }
    if (find(content, ENTRY_KEY, NULL, &name) && name.size == strlen(key) &&
        memcmp(name.data, key, name.size) == 0)
      return find(content, ENTRY_VALUE, NULL, found);
  }
  return false;
}

/* ---- The model ---- */

/* Finds the graph's tensor for an input or output (`kind`) of the signature. */
static bool find_tensor(TF_Graph *graph, const TF_Buffer *meta_graph, uint64_t kind,
                        const char *key, TF_Output *place) {
  const Bytes message = {meta_graph->data, meta_graph->length};
  Bytes signature, tensor, name;
  if (!find(message, META_GRAPH_SIGNATURES, SIGNATURE, &signature))
    return fail("the model has no signature", SIGNATURE);
  if (!find(signature, kind, key, &tensor) || !find(tensor, TENSOR_NAME, NULL, &name))
    return fail("the signature " SIGNATURE " has no", key);

  char operation[512]; /* followed by ":" and the index of its output */
  if (name.size >= sizeof operation) return fail("tensor name too long for", key);
  memcpy(operation, name.data, name.size);
  operation[name.size] = '\0';
  char *colon = strrchr(operation, ':');
  place->index = 0;
  if (colon != NULL) {
    place->index = atoi(colon + 1);
    *colon = '\0';
  }
  place->oper = TF_GraphOperationByName(graph, operation);
  if (place->oper == NULL) return fail("the graph has no operation", operation);
  if (place->index < 0 || place->index >= TF_OperationNumOutputs(place->oper))
    return fail("the graph has no such output of", operation);
  return true;
}

static void keep(void *data, size_t length, void *argument) {
  (void)data, (void)length, (void)argument; /* nothing to free: it is on the stack */
}

/* Runs the signature on one encoded image. The caller deletes `answers`. */
static bool run(TF_Session *session, TF_Graph *graph, const TF_Buffer *meta_graph,
                Bytes image, TF_Tensor *answers[2], TF_Status *status) {
  TF_Output input, outputs[2];
  if (!find_tensor(graph, meta_graph, SIGNATURE_INPUTS, "image_bytes", &input) ||
      !find_tensor(graph, meta_graph, SIGNATURE_OUTPUTS, "classes", &outputs[0]) ||
      !find_tensor(graph, meta_graph, SIGNATURE_OUTPUTS, "scores", &outputs[1]))
    return false;

  /* A view of the file's bytes, so nothing is copied or has to be freed. */
  TF_TString text;
  TF_StringInit(&text);
  TF_StringAssignView(&text, (const char *)image.data, image.size);
  const int64_t shape[] = {1};
  TF_Tensor *images =
      TF_NewTensor(TF_STRING, shape, 1, &text, sizeof text, keep, NULL);
  if (images == NULL) return fail("no tensor", "out of memory");
  TF_SessionRun(session, NULL, &input, &images, 1, outputs, answers, 2, NULL, 0, NULL,
                status);
  TF_DeleteTensor(images);
  if (TF_GetCode(status) != TF_OK)
    return fail("the model does not take the image", TF_Message(status));
  return true;
}

static bool print(const TF_Tensor *classes, const TF_Tensor *scores) {
  if (TF_TensorType(classes) != TF_STRING || TF_TensorType(scores) != TF_FLOAT ||
      TF_NumDims(classes) != 2 || TF_NumDims(scores) != 2 || TF_Dim(classes, 0) != 1 ||
      TF_Dim(scores, 0) != 1 || TF_Dim(classes, 1) != TF_Dim(scores, 1))
    return fail("the model answers", "neither strings nor floats of shape (1, k)");
  const TF_TString *names = TF_TensorData(classes);
  const float *values = TF_TensorData(scores);
  for (int64_t i = 0; i < TF_Dim(classes, 1); i++)
    printf("%.*s\t%.8f\n", (int)TF_StringGetSize(&names[i]),
           TF_StringGetDataPointer(&names[i]), values[i]);
  if (fflush(stdout) != 0) return fail("stdout", strerror(errno));
  return true;
}

/* ---- The program ---- */

/* Reads a whole file. The caller frees `content`. */
static bool read_file(const char *path, unsigned char **content, size_t *size) {
  size_t capacity = 1 << 16;
  FILE *file = fopen(path, "rb");
  if (file == NULL) return fail(path, strerror(errno));
  *size = 0;
  *content = malloc(capacity);
  while (*content != NULL) {
    *size += fread(*content + *size, 1, capacity - *size, file);
    if (*size < capacity) break;
    capacity *= 2;
    unsigned char *larger = realloc(*content, capacity);
    if (larger == NULL) free(*content);
    *content = larger;
  }
  const int error = *content == NULL ? ENOMEM : ferror(file) ? errno : 0;
  fclose(file);
  return error == 0 || fail(path, strerror(error));
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s SAVED_MODEL_DIRECTORY IMAGE\n", argv[0]);
    return 2;
  }

  unsigned char *image = NULL;
  size_t size = 0;
  bool done = read_file(argv[2], &image, &size);
  if (done) {
    TF_Status *status = TF_NewStatus();
    TF_Graph *graph = TF_NewGraph();
    TF_SessionOptions *options = TF_NewSessionOptions();
    TF_Buffer *meta_graph = TF_NewBuffer();
    TF_Tensor *answers[2] = {NULL, NULL};
    const char *tags[] = {"serve"};
    TF_Session *session = TF_LoadSessionFromSavedModel(
        options, NULL, argv[1], tags, 1, graph, meta_graph, status);
    if (TF_GetCode(status) == TF_OK)
      done = run(session, graph, meta_graph, (Bytes){image, size}, answers, status) &&
             print(answers[0], answers[1]);
    else
      done = fail(argv[1], TF_Message(status));

    for (int i = 0; i < 2; i++)
      if (answers[i] != NULL) TF_DeleteTensor(answers[i]);
    if (session != NULL) {
      TF_CloseSession(session, status);
      TF_DeleteSession(session, status);
    }
    TF_DeleteBuffer(meta_graph);
    TF_DeleteSessionOptions(options);
    TF_DeleteGraph(graph);
    TF_DeleteStatus(status);
  }
  free(image);
  return done ? 0 : 1;
}
