// segment.crf._native: the mean field for Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "field.h"
#include "mean_field.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

Array<float> mean_field(const Array<uint8_t>& photo, const Array<float>& probabilities,
                        int iterations, float clip, float position_px, float position_weight,
                        float bilateral_px, float bilateral_levels, float bilateral_weight,
                        const std::string& normalization, const py::object& compatibility,
                        int threads, const std::string& instruction_set) {
  using namespace segment_crf;
  if (photo.ndim() != 3 || probabilities.ndim() != 3 || photo.shape(2) != 3 ||
      photo.shape(0) != probabilities.shape(1) || photo.shape(1) != probabilities.shape(2) ||
      probabilities.size() == 0)
    throw std::invalid_argument("photo must be (H, W, 3) and probabilities (C, H, W)");
  const int classes = static_cast<int>(probabilities.shape(0));
  const int height = static_cast<int>(photo.shape(0)), width = static_cast<int>(photo.shape(1));
  if (static_cast<double>(height) * width > 2147483647.0)
    throw std::invalid_argument("the photo has more than 2^31 pixels");
  Settings settings{};
  settings.iterations = iterations;
  settings.clip = clip;
  settings.position_px = position_px;
  settings.position_weight = position_weight;
  settings.bilateral_px = bilateral_px;
  settings.bilateral_levels = bilateral_levels;
  settings.bilateral_weight = bilateral_weight;
  settings.threads = threads;
  settings.instruction_set = instruction_set;
  settings.normalization = normalization == "symmetric" ? Normalization::kSymmetric
                           : normalization == "after"   ? Normalization::kAfter
                           : normalization == "before"  ? Normalization::kBefore
                                                        : Normalization::kNone;
  Array<float> matrix;
  if (!compatibility.is_none()) {
    matrix = py::cast<Array<float>>(compatibility);
    if (matrix.ndim() != 2 || matrix.shape(0) != classes || matrix.shape(1) != classes)
      throw std::invalid_argument("compatibility must be (C, C)");
    settings.compatibility = matrix.data();
  }
  Array<float> out({probabilities.shape(0), probabilities.shape(1), probabilities.shape(2)});
  const uint8_t* pixels = photo.data();
  const float* from = probabilities.data();
  float* to = out.mutable_data();
  py::gil_scoped_release release;
  segment_crf::mean_field(pixels, from, classes, height, width, settings, to);
  return out;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "Mean field on permutohedral lattices; see segment.crf.native.";
  module.def("mean_field", &mean_field, py::arg("photo"), py::arg("probabilities"), py::kw_only(),
             py::arg("iterations"), py::arg("clip"), py::arg("position_px"),
             py::arg("position_weight"), py::arg("bilateral_px"), py::arg("bilateral_levels"),
             py::arg("bilateral_weight"), py::arg("normalization"), py::arg("compatibility"),
             py::arg("threads"), py::arg("instruction_set") = "");
  module.def("instruction_sets", &segment_crf::instruction_sets);
  module.attr("MOST_CLASSES") = segment_crf::kMostClasses;
}
