# %% [markdown]
# # SE by hand

# %%
print(1)
