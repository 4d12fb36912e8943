// An op that TensorFlow does not know: RunnerTriple(x) = 3 x.
#include <cstdint>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_tensor.h"

static void compute(void*, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  TF_Tensor* x = nullptr;
  TF_GetInput(context, 0, &x, status);
  int64_t count = TF_TensorElementCount(x), dims[1] = {TF_Dim(x, 0)};
  TF_Tensor* y = TF_AllocateOutput(context, 0, TF_FLOAT, dims, 1, count * sizeof(float), status);
  for (int64_t i = 0; i < count; i++) ((float*)TF_TensorData(y))[i] = 3 * ((float*)TF_TensorData(x))[i];
  TF_DeleteTensor(x);
  TF_DeleteTensor(y);
  TF_DeleteStatus(status);
}

static void same_shape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, 0, shape, status);
  TF_ShapeInferenceContextSetOutput(context, 0, shape, status);
  TF_DeleteShapeHandle(shape);
}

__attribute__((constructor)) static void enrol() {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder("RunnerTriple");
  TF_OpDefinitionBuilderAddInput(op, "x: float");
  TF_OpDefinitionBuilderAddOutput(op, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &same_shape);
  TF_RegisterOpDefinition(op, status);
  TF_KernelBuilder* kernel = TF_NewKernelBuilder("RunnerTriple", "CPU", nullptr, &compute, nullptr);
  TF_RegisterKernelBuilder("RunnerTriple", kernel, status);
  TF_DeleteStatus(status);
}
