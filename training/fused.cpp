// Group normalisation followed by SiLU (or by nothing) in one pass each way, for bfloat16 channels_last maps on a CPU.
// PyTorch's own kernels for this pair take most of a training step on the embedded models: see training/README.md.
#include <torch/extension.h>
#include <ATen/Parallel.h>
#include <cmath>
#include <vector>

namespace {

inline float load(const uint16_t v) {
  union { uint32_t i; float f; } u;
  u.i = static_cast<uint32_t>(v) << 16;
  return u.f;
}

inline uint16_t store(const float v) {
  union { float f; uint32_t i; } u;
  u.f = v;
  return static_cast<uint16_t>((u.i + 0x7fff + ((u.i >> 16) & 1)) >> 16);
}

// Rows of several pixels are handled together, so that the inner loops are long enough for wide registers.
int64_t pixels_per_row(int64_t pixels) {
  int64_t p = 16;
  while (pixels % p) p /= 2;
  return p;
}

const uint16_t* raw(const torch::Tensor& t) { return reinterpret_cast<const uint16_t*>(t.data_ptr<at::BFloat16>()); }
uint16_t* raw_mut(torch::Tensor& t) { return reinterpret_cast<uint16_t*>(t.data_ptr<at::BFloat16>()); }

}  // namespace

std::vector<torch::Tensor> forward(torch::Tensor x, torch::Tensor weight, torch::Tensor bias, int64_t groups, double eps, bool silu) {
  const int64_t N = x.size(0), C = x.size(1), HW = x.size(2) * x.size(3), P = pixels_per_row(HW), L = P * C, R = HW / P, D = C / groups;
  auto y = torch::empty_like(x);
  auto scale = torch::empty({N, C}, torch::kFloat), shift = torch::empty({N, C}, torch::kFloat), stats = torch::empty({N, groups, 2}, torch::kFloat);
  const uint16_t* xp = raw(x);
  uint16_t* yp = raw_mut(y);
  const float *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float *sc = scale.data_ptr<float>(), *sh = shift.data_ptr<float>(), *st = stats.data_ptr<float>();
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> s1(L), s2(L), a(L), o(L);
    for (int64_t n = begin; n < end; ++n) {
      const uint16_t* xn = xp + n * HW * C;
      uint16_t* yn = yp + n * HW * C;
      std::fill(s1.begin(), s1.end(), 0.f);
      std::fill(s2.begin(), s2.end(), 0.f);
      float *p1 = s1.data(), *p2 = s2.data(), *pa = a.data(), *po = o.data();
      for (int64_t r = 0; r < R; ++r) {
        const uint16_t* row = xn + r * L;
#pragma GCC ivdep
        for (int64_t i = 0; i < L; ++i) { const float v = load(row[i]); p1[i] += v; p2[i] += v * v; }
      }
      for (int64_t g = 0; g < groups; ++g) {
        double m1 = 0, m2 = 0;
        for (int64_t p = 0; p < P; ++p)
          for (int64_t c = g * D; c < (g + 1) * D; ++c) { m1 += p1[p * C + c]; m2 += p2[p * C + c]; }
        const double count = double(HW) * D, mean = m1 / count, rstd = 1.0 / std::sqrt(std::max(m2 / count - mean * mean, 0.0) + eps);
        st[(n * groups + g) * 2] = mean;
        st[(n * groups + g) * 2 + 1] = rstd;
        for (int64_t c = g * D; c < (g + 1) * D; ++c) {
          sc[n * C + c] = rstd * w[c];
          sh[n * C + c] = b[c] - mean * rstd * w[c];
          for (int64_t p = 0; p < P; ++p) { pa[p * C + c] = sc[n * C + c]; po[p * C + c] = sh[n * C + c]; }
        }
      }
      for (int64_t r = 0; r < R; ++r) {
        const uint16_t* row = xn + r * L;
        uint16_t* out = yn + r * L;
        if (silu) {
#pragma GCC ivdep
          for (int64_t i = 0; i < L; ++i) { const float h = load(row[i]) * pa[i] + po[i]; out[i] = store(h / (1.f + expf(-h))); }
        } else {
#pragma GCC ivdep
          for (int64_t i = 0; i < L; ++i) out[i] = store(load(row[i]) * pa[i] + po[i]);
        }
      }
    }
  });
  return {y, scale, shift, stats};
}

std::vector<torch::Tensor> backward(torch::Tensor dy, torch::Tensor x, torch::Tensor weight, torch::Tensor scale, torch::Tensor shift, torch::Tensor stats, bool silu) {
  const int64_t N = x.size(0), C = x.size(1), HW = x.size(2) * x.size(3), P = pixels_per_row(HW), L = P * C, R = HW / P, G = stats.size(1), D = C / G;
  auto dx = torch::empty_like(x);
  auto dw = torch::empty({N, C}, torch::kFloat), db = torch::empty({N, C}, torch::kFloat);
  const uint16_t *xp = raw(x), *gp = raw(dy);
  uint16_t* dp = raw_mut(dx);
  const float *sc = scale.data_ptr<float>(), *sh = shift.data_ptr<float>(), *st = stats.data_ptr<float>(), *w = weight.data_ptr<float>();
  float *dwp = dw.data_ptr<float>(), *dbp = db.data_ptr<float>();
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> s1(L), s2(L), a(L), o(L), k(L), held(HW * C);
    for (int64_t n = begin; n < end; ++n) {
      const uint16_t *xn = xp + n * HW * C, *gn = gp + n * HW * C;
      uint16_t* dn = dp + n * HW * C;
      float *p1 = s1.data(), *p2 = s2.data(), *pa = a.data(), *po = o.data(), *pk = k.data();
      std::fill(s1.begin(), s1.end(), 0.f);
      std::fill(s2.begin(), s2.end(), 0.f);
      for (int64_t p = 0; p < P; ++p)
        for (int64_t c = 0; c < C; ++c) { pa[p * C + c] = sc[n * C + c]; po[p * C + c] = sh[n * C + c]; }
      for (int64_t r = 0; r < R; ++r) {
        const uint16_t *row = xn + r * L, *grow = gn + r * L;
        float* hr = held.data() + r * L;
        if (silu) {
#pragma GCC ivdep
          for (int64_t i = 0; i < L; ++i) {
            const float v = load(row[i]), h = v * pa[i] + po[i], s = 1.f / (1.f + expf(-h)), d = load(grow[i]) * s * (1.f + h * (1.f - s));
            hr[i] = d; p1[i] += d; p2[i] += d * v;
          }
        } else {
#pragma GCC ivdep
          for (int64_t i = 0; i < L; ++i) { const float v = load(row[i]), d = load(grow[i]); hr[i] = d; p1[i] += d; p2[i] += d * v; }
        }
      }
      // dx = rstd (w dh - mean(w dh) - xhat mean(w dh xhat)) over each group, written as dh * pa + x * pk + po.
      for (int64_t g = 0; g < G; ++g) {
        const double mean = st[(n * G + g) * 2], rstd = st[(n * G + g) * 2 + 1], count = double(HW) * D;
        double q1 = 0, q2 = 0;
        for (int64_t c = g * D; c < (g + 1) * D; ++c) {
          double t1 = 0, t2 = 0;
          for (int64_t p = 0; p < P; ++p) { t1 += p1[p * C + c]; t2 += p2[p * C + c]; }
          const double along = (t2 - mean * t1) * rstd;
          dbp[n * C + c] = t1;
          dwp[n * C + c] = along;
          q1 += t1 * w[c];
          q2 += along * w[c];
        }
        q1 /= count; q2 /= count;
        const float kx = -rstd * q2 * rstd, k0 = -rstd * q1 + rstd * q2 * rstd * mean;
        for (int64_t p = 0; p < P; ++p)
          for (int64_t c = g * D; c < (g + 1) * D; ++c) { pk[p * C + c] = kx; po[p * C + c] = k0; }
      }
      for (int64_t r = 0; r < R; ++r) {
        const uint16_t* row = xn + r * L;
        const float* hr = held.data() + r * L;
        uint16_t* out = dn + r * L;
#pragma GCC ivdep
        for (int64_t i = 0; i < L; ++i) out[i] = store(hr[i] * pa[i] + load(row[i]) * pk[i] + po[i]);
      }
    }
  });
  return {dx, dw.sum(0), db.sum(0)};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
