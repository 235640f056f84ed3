"""Make a pipeline known that is none of diffusers' own: say what is special about it, and have that checked."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

import renoise


class TwoCallsPipeline(DiffusionPipeline):
    """Text to image as the community writes it: it asks its UNet about the prompt and about nothing, one by one."""

    def __init__(self, vae, text_encoder, tokenizer, unet, scheduler):
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def embed(self, prompts):
        length = self.tokenizer.model_max_length
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(ids.input_ids)[0]

    @torch.no_grad()
    def __call__(
        self,
        prompt,
        height=64,
        width=64,
        num_inference_steps=50,
        weight=4.0,
        generator=None,
        output_type="pt",
        return_dict=True,
    ):
        count, factor = len(prompt), self.vae_scale_factor
        words, nothing = self.embed(prompt), self.embed([""] * count)
        self.scheduler.set_timesteps(num_inference_steps)
        shape = (count, self.unet.config.in_channels, height // factor, width // factor)
        z = torch.randn(shape, generator=generator) * self.scheduler.init_noise_sigma
        for t in self.progress_bar(self.scheduler.timesteps):
            seen = self.scheduler.scale_model_input(z, t)
            m = self.unet(seen, t, encoder_hidden_states=words)[0]
            if weight > 0:  # (1 + w) c - w u
                u = self.unet(seen, t, encoder_hidden_states=nothing)[0]
                m = m + weight * (m - u)
            z = self.scheduler.step(m, t, z).prev_sample
        if output_type == "latent":
            return (z,)
        pictures = (self.vae.decode(z / self.vae.config.scaling_factor)[0] / 2 + 0.5).clamp(0, 1)
        return ImagePipelineOutput(pictures) if return_dict else (pictures,)


emoji = renoise.models.load("emoji")
pipe = TwoCallsPipeline(emoji.vae, emoji.text_encoder, emoji.tokenizer, emoji.unet, emoji.scheduler)
pipe.set_progress_bar_config(disable=True)

row = renoise.Family(
    pipelines=("TwoCallsPipeline",),
    guidance=lambda pipe, scale: {"weight": scale - 1},  # 1 means none in this package
    patch=0,  # a UNet, which has no tokens
    width=lambda config: config.cross_attention_dim,
    direct=renoise.Loop(latents="sample", twice=True, guide=lambda c, u, scale: c + (scale - 1) * (c - u)),
)
print(renoise.register_family("two-calls", row, pipe, "red apple, blob style"))

inv = renoise.invert(pipe, renoise.models.EXAMPLE, "red apple, blob style", num_inference_steps=20)
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f}")
inv.edit("green apple, blob style").save("edited-by-two-calls.png")
