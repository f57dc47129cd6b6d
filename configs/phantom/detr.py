# Plain DETR in the size of the phantom detector: the last stage only, global attention, softmax.
_base_ = ['./main.py']

attention = dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True)
no_dropout = dict(embed_dims=256, feedforward_channels=512, ffn_drop=0.0)
model = dict(
    _delete_=True,
    type='DETR',
    num_queries=30,
    data_preprocessor=_base_.model.data_preprocessor,
    backbone={**_base_.model.backbone, 'out_indices': (3, )},
    neck=dict(type='ChannelMapper', in_channels=[256], kernel_size=1, out_channels=256,
              act_cfg=None, norm_cfg=None, num_outs=1),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=no_dropout)),
    decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=no_dropout)),
    positional_encoding=dict(num_feats=128, normalize=True),
    bbox_head=dict(
        type='DETRHead',
        num_classes=1,
        embed_dims=256,
        loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False,
                      loss_weight=1.0, class_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ])),
    test_cfg=dict(max_per_img=20))
